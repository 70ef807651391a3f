//! The load-balancing walk-through, typed as a tutorial has it: curl, form-encoded, two nginx services, five parts.
//! The lines name ports 8000 and 8001 (gateway), 9001 and 9002 (services); each run puts its own in their places.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::curl::curl;
use crate::harness::gateway::Gateway;
use crate::harness::nginx::Nginx;
use crate::harness::on_both_drivers;

on_both_drivers!(
    the_five_parts_by_curl,
    every_call_also_works_with_json,
    every_call_also_works_over_the_unix_socket,
    everything_goes_by_name_as_well_as_by_id,
    lists_and_deletes_work,
);

/// A gateway and the two services behind it.
struct Tutorial {
    gateway: Gateway,
    services: [Nginx; 2],
}

impl Tutorial {
    fn start(driver: Driver) -> Self {
        let services = [Nginx::start("service-1"), Nginx::start("service-2")];
        Self { gateway: Gateway::start(driver), services }
    }

    fn ports(&self) -> [(u16, u16); 4] {
        let [one, two] = &self.services;
        [(8000, self.gateway.proxy), (8001, self.gateway.admin), (9001, one.port()), (9002, two.port())]
    }

    #[track_caller]
    fn curl(&self, line: &str) -> Response {
        curl(line, &self.ports())
    }

    /// A line that creates something; its id.
    #[track_caller]
    fn id_of(&self, line: &str) -> String {
        let entity = self.curl(line).must_be(201).json();
        entity["id"].as_str().unwrap_or_else(|| panic!("no id in {entity}")).to_owned()
    }

    /// Which service answers each of `count` requests on one connection, thus on one core.
    #[track_caller]
    fn served_by(&self, count: usize) -> Vec<String> {
        let mut client = self.gateway.connect();
        let mut ask = || client.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").must_be(200);
        (0..count).map(|_| ask().header("x-served-by").expect("both services say who they are").to_owned()).collect()
    }

    #[track_caller]
    fn must_say_hello(&self) {
        let answer = self.curl("curl http://localhost:8000/").must_be(200);
        assert_eq!(answer.text(), "Hello from my service\n");
    }
}

fn counted(names: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    names.iter().for_each(|name| *counts.entry(name.as_str()).or_default() += 1);
    counts
}

fn the_five_parts_by_curl(driver: Driver) {
    let mut tutorial = Tutorial::start(driver);
    let service = part_1_a_service_and_a_route(&tutorial);
    let key = part_2_a_route_with_key_auth(&tutorial, &service);
    part_3_an_upstream_with_two_targets(&tutorial);
    part_4_services_stop_and_come_back(&mut tutorial);
    part_5_the_gateway_is_killed_and_started_again(&mut tutorial, &key);
}

fn part_1_a_service_and_a_route(tutorial: &Tutorial) -> String {
    let line = "curl -X POST --url http://localhost:8001/services/ --data 'name=moesif-service' --data 'url=http://localhost:9001'";
    let service = tutorial.curl(line).must_be(201).json();
    assert_eq!(service["host"], "localhost");
    assert_eq!(service["port"], tutorial.services[0].port());
    let id = service["id"].as_str().expect("an id").to_owned();
    tutorial
        .id_of(&format!("curl -X POST --url http://localhost:8001/routes --data 'paths[]=/' --data 'service.id={id}'"));
    tutorial.must_say_hello();
    let answer = tutorial.curl("curl -X GET --url http://localhost:8000/").must_be(200);
    let token = concat!("ringway/", env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.header("via"), Some(format!("1.1 {token}").as_str()));
    assert!(answer.header("server").is_some_and(|server| server.starts_with("nginx")), "{}", answer.head);
    for name in ["x-kong-upstream-latency", "x-kong-proxy-latency"] {
        let value = answer.header(name).unwrap_or_else(|| panic!("no {name} in {}", answer.head));
        value.parse::<u64>().unwrap_or_else(|_| panic!("{name}: {value} is no number"));
    }
    assert_eq!(answer.header("x-kong-request-id").map(str::len), Some(32));
    id
}

fn part_2_a_route_with_key_auth(tutorial: &Tutorial, service: &str) -> String {
    let route = tutorial
        .id_of(&format!("curl -X POST http://localhost:8001/routes -d 'paths[]=/profile' -d 'service.id={service}'"));
    let line = format!("curl -X PATCH http://localhost:8001/routes/{route} -d 'strip_path=false'");
    assert_eq!(tutorial.curl(&line).must_be(200).json()["strip_path"], false);
    tutorial.id_of(&format!("curl -X POST http://localhost:8001/routes/{route}/plugins --data 'name=key-auth'"));
    let consumer = tutorial.id_of("curl -i -X POST --url http://localhost:8001/consumers -d 'username=moesif'");
    let made = tutorial.curl("curl -X POST http://localhost:8001/consumers/moesif/key-auth").must_be(201).json();
    let key = made["key"].as_str().filter(|key| key.len() == 32).expect("a generated key of 32 characters").to_owned();
    assert_eq!(made["consumer"]["id"], consumer.as_str());

    let refused = tutorial.curl("curl http://localhost:8000/profile").must_be(401);
    assert_eq!(refused.json()["message"], "No API key found in request");
    assert_eq!(refused.header("www-authenticate"), Some("Key"));
    let wrong = tutorial.curl("curl http://localhost:8000/profile -H 'apikey: nonsense'").must_be(401);
    assert_eq!(wrong.json()["message"], "Unauthorized");
    for line in [
        format!("curl http://localhost:8000/profile -H 'apikey: {key}'"),
        format!("curl 'http://localhost:8000/profile?apikey={key}'"),
    ] {
        let profile = tutorial.curl(&line).must_be(200).json();
        assert_eq!(profile["id"], consumer.as_str(), "{line}");
        assert_eq!(profile["username"], "moesif", "{line}");
        assert!(profile["description"].is_string(), "{line}");
    }
    tutorial.must_say_hello();
    key
}

fn part_3_an_upstream_with_two_targets(tutorial: &Tutorial) {
    let upstream = tutorial.id_of("curl -X POST http://localhost:8001/upstreams --data 'name=localhost'");
    let targets = format!("http://localhost:8001/upstreams/{upstream}/targets");
    tutorial.id_of(&format!("curl -X POST {targets} --data 'target=localhost:9001'"));
    let second = tutorial.id_of(&format!("curl -X POST {targets} --data 'target=localhost:9002'"));

    let names = tutorial.served_by(20);
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "the services take turns: {names:?}");
    let by_curl: Vec<String> = (0..20)
        .map(|_| {
            let answer = tutorial.curl("curl http://localhost:8000/").must_be(200);
            answer.header("x-served-by").expect("a name").to_owned()
        })
        .collect();
    let counts = counted(&by_curl);
    // Each of the two cores goes through its own ring.
    assert!(counts.values().all(|count| (9..=11).contains(count)) && counts.len() == 2, "{by_curl:?}");

    let line = format!("curl -X PATCH {targets}/{second} --data 'weight=300'");
    tutorial.curl(&line).must_be(200);
    let names = tutorial.served_by(40);
    assert_eq!(counted(&names), BTreeMap::from([("service-1", 10), ("service-2", 30)]));
    tutorial.curl(&format!("curl -X PATCH {targets}/{second} --data 'weight=100'")).must_be(200);
}

fn part_4_services_stop_and_come_back(tutorial: &mut Tutorial) {
    tutorial.services[0].stop();
    for _ in 0..10 {
        tutorial.must_say_hello();
    }
    let names = tutorial.served_by(10);
    assert!(names.iter().all(|name| name == "service-2"), "{names:?}");
    tutorial.services[0].start_again();
    let names = tutorial.served_by(10);
    assert_eq!(counted(&names), BTreeMap::from([("service-1", 5), ("service-2", 5)]), "it is used again");

    tutorial.services.iter_mut().for_each(Nginx::stop);
    let answer = tutorial.curl("curl http://localhost:8000/").must_be(502);
    let id = answer.header("x-kong-request-id").expect("a request id");
    let want = format!(
        "{{\n  \"message\":\"An invalid response was received from the upstream server\",\n  \"request_id\":\"{id}\"\n}}"
    );
    assert_eq!(answer.text(), want);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    let answer = tutorial.curl("curl http://localhost:8000/ -H 'Accept: text/html'").must_be(502);
    assert!(answer.text().starts_with("<!doctype html>\n"), "{}", answer.text());
    tutorial.services.iter_mut().for_each(Nginx::start_again);
    tutorial.must_say_hello();
}

fn part_5_the_gateway_is_killed_and_started_again(tutorial: &mut Tutorial, key: &str) {
    let list = |tutorial: &Tutorial, path: &str| {
        tutorial.curl(&format!("curl http://localhost:8001{path}")).must_be(200).json()
    };
    let paths =
        ["/services", "/routes", "/plugins", "/consumers", "/key-auths", "/upstreams", "/upstreams/localhost/targets"];
    let before = paths.map(|path| list(tutorial, path));
    tutorial.gateway.kill();
    tutorial.gateway.restart();
    for (path, before) in paths.iter().zip(before) {
        assert_eq!(list(tutorial, path), before, "{path}");
    }
    tutorial.must_say_hello();
    tutorial.curl("curl http://localhost:8000/profile").must_be(401);
    tutorial.curl(&format!("curl http://localhost:8000/profile -H 'apikey: {key}'")).must_be(200);
    assert_eq!(counted(&tutorial.served_by(10)), BTreeMap::from([("service-1", 5), ("service-2", 5)]));
}

/// A line with a JSON body.
fn json_line(method: &str, path: &str, body: &Value) -> String {
    format!("curl -X {method} http://localhost:8001{path} -H 'Content-Type: application/json' -d '{body}'")
}

fn every_call_also_works_with_json(driver: Driver) {
    let tutorial = Tutorial::start(driver);
    let post = |path: &str, body: Value| tutorial.id_of(&json_line("POST", path, &body));
    let url = format!("http://localhost:{}", tutorial.services[0].port());
    let service = post("/services/", json!({"name": "moesif-service", "url": url}));
    post("/routes", json!({"paths": ["/"], "service": {"id": service}}));
    tutorial.must_say_hello();
    let route = post("/routes", json!({"paths": ["/profile"], "service": {"id": service}}));
    let patched = tutorial.curl(&json_line("PATCH", &format!("/routes/{route}"), &json!({"strip_path": false})));
    assert_eq!(patched.must_be(200).json()["strip_path"], false);
    post(&format!("/routes/{route}/plugins"), json!({"name": "key-auth"}));
    let consumer = post("/consumers", json!({"username": "moesif"}));
    let made = tutorial.curl(&json_line("POST", "/consumers/moesif/key-auth", &json!({}))).must_be(201).json();
    let key = made["key"].as_str().expect("a key");
    tutorial.curl("curl http://localhost:8000/profile").must_be(401);
    let profile = tutorial.curl(&format!("curl http://localhost:8000/profile -H 'apikey: {key}'")).must_be(200).json();
    assert_eq!(profile["id"], consumer.as_str());
    let upstream = post("/upstreams", json!({"name": "localhost"}));
    for nginx in &tutorial.services {
        let target = format!("localhost:{}", nginx.port());
        post(&format!("/upstreams/{upstream}/targets"), json!({"target": target}));
    }
    assert_eq!(counted(&tutorial.served_by(10)), BTreeMap::from([("service-1", 5), ("service-2", 5)]));
}

fn every_call_also_works_over_the_unix_socket(driver: Driver) {
    let tutorial = Tutorial::start(driver);
    let socket = tutorial.gateway.socket();
    let ask = |line: &str| {
        tutorial.curl(&format!("curl --unix-socket {} {line}", socket.display()).replace("@", "http://localhost"))
    };
    let service = ask("-X POST @/services/ -d name=moesif-service -d url=http://localhost:9001").must_be(201).json();
    let id = service["id"].as_str().expect("an id");
    ask(&format!("-X POST @/routes -d 'paths[]=/' -d service.id={id}")).must_be(201);
    tutorial.must_say_hello();
    let route = ask(&format!("-X POST @/routes -d 'paths[]=/profile' -d service.id={id}")).must_be(201).json();
    let route = route["id"].as_str().expect("an id");
    ask(&format!("-X PATCH @/routes/{route} -d strip_path=false")).must_be(200);
    ask(&format!("-X POST @/routes/{route}/plugins -d name=key-auth")).must_be(201);
    ask("-X POST @/consumers -d username=moesif").must_be(201);
    let made = ask("-X POST @/consumers/moesif/key-auth").must_be(201).json();
    let key = made["key"].as_str().expect("a key");
    tutorial.curl(&format!("curl http://localhost:8000/profile?apikey={key}")).must_be(200);
    let upstream = ask("-X POST @/upstreams -d name=localhost").must_be(201).json();
    let upstream = upstream["id"].as_str().expect("an id");
    ask(&format!("-X POST @/upstreams/{upstream}/targets -d target=localhost:9001")).must_be(201);
    ask(&format!("-X POST @/upstreams/{upstream}/targets -d target=localhost:9002")).must_be(201);
    assert_eq!(counted(&tutorial.served_by(10)), BTreeMap::from([("service-1", 5), ("service-2", 5)]));
    let count = |path: &str| ask(&format!("@{path}")).must_be(200).json()["data"].as_array().map(Vec::len);
    assert_eq!((count("/services"), count("/routes")), (Some(1), Some(2)));
    ask(&format!("-X DELETE @/routes/{route}")).must_be(204);
    let answer = tutorial.curl("curl http://localhost:8000/profile").must_be(401);
    assert!(answer.header("x-served-by").is_some(), "the other route takes it, to the service: {}", answer.head);
}

fn everything_goes_by_name_as_well_as_by_id(driver: Driver) {
    let tutorial = Tutorial::start(driver);
    let post = |path: &str, data: &str| tutorial.id_of(&format!("curl -X POST http://localhost:8001{path} {data}"));
    let service = post("/services", "-d name=moesif-service -d url=http://localhost:9001");
    let route = post("/services/moesif-service/routes", "-d name=home -d 'paths[]=/'");
    let by_reference = post("/routes", "-d name=second -d 'paths[]=/second' -d service.name=moesif-service");
    let consumer = post("/consumers", "-d username=moesif -d custom_id=m-1");
    let upstream = post("/upstreams", "-d name=localhost");
    let target = post("/upstreams/localhost/targets", "-d target=localhost:9001");
    let plugin = post("/routes/second/plugins", "-d name=key-auth -d instance_name=keys-of-second");
    let key = post("/consumers/moesif/key-auth", "-d key=the-key");
    for (by_name, by_id) in [
        ("/services/moesif-service", format!("/services/{service}")),
        ("/routes/home", format!("/routes/{route}")),
        ("/routes/second", format!("/routes/{by_reference}")),
        ("/services/moesif-service/routes/home", format!("/services/{service}/routes/{route}")),
        ("/routes/home/service", format!("/routes/{route}/service")),
        ("/consumers/moesif", format!("/consumers/{consumer}")),
        ("/consumers/moesif/key-auth/the-key", format!("/consumers/{consumer}/key-auth/{key}")),
        ("/key-auths/the-key", format!("/key-auths/{key}")),
        ("/plugins/keys-of-second", format!("/plugins/{plugin}")),
        ("/upstreams/localhost", format!("/upstreams/{upstream}")),
        ("/upstreams/localhost/targets", format!("/upstreams/{upstream}/targets")),
    ] {
        let named = tutorial.curl(&format!("curl http://localhost:8001{by_name}")).must_be(200).json();
        let identified = tutorial.curl(&format!("curl http://localhost:8001{by_id}")).must_be(200).json();
        assert_eq!(named, identified, "{by_name}");
    }
    let listed = tutorial.curl("curl http://localhost:8001/upstreams/localhost/targets").json();
    assert_eq!(listed["data"][0]["id"], target.as_str());
    let line = "curl -X PATCH http://localhost:8001/routes/second -d 'paths[]=/changed'";
    assert_eq!(tutorial.curl(line).must_be(200).json()["paths"], json!(["/changed"]));
    tutorial.curl("curl http://localhost:8000/changed").must_be(401);
    tutorial.curl("curl 'http://localhost:8000/changed?apikey=the-key'").must_be(200);
    let line = "curl -X PUT http://localhost:8001/routes/third -d 'paths[]=/third' -d service.name=moesif-service";
    assert_eq!(tutorial.curl(line).must_be(200).json()["name"], "third");
    tutorial.curl("curl http://localhost:8000/third").must_be(200);
    tutorial.curl("curl -X DELETE http://localhost:8001/routes/third").must_be(204);
    tutorial.curl("curl -X DELETE http://localhost:8001/routes/home").must_be(204);
    assert_eq!(
        tutorial.curl("curl http://localhost:8000/").must_be(404).json()["message"],
        "no Route matched with those values"
    );
}

fn lists_and_deletes_work(driver: Driver) {
    let tutorial = Tutorial::start(driver);
    for n in 0..7 {
        tutorial.id_of(&format!("curl -X POST http://localhost:8001/consumers -d username=c{n} -d 'tags[]=t'"));
    }
    let mut names = Vec::new();
    let mut path = "/consumers?size=3".to_owned();
    for pages_left in (0..3).rev() {
        let page = tutorial.curl(&format!("curl 'http://localhost:8001{path}'")).must_be(200).json();
        names.extend(page["data"].as_array().expect("a list").iter().map(|c| c["username"].to_string()));
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => assert_eq!(pages_left, 0, "{page}"),
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 7, "{names:?}");
    tutorial.curl("curl -X DELETE http://localhost:8001/consumers/c3").must_be(204);
    tutorial.curl("curl -X DELETE http://localhost:8001/consumers/c3").must_be(204);
    tutorial.curl("curl http://localhost:8001/consumers/c3").must_be(404);
    let left = tutorial.curl("curl http://localhost:8001/consumers").must_be(200).json();
    assert_eq!(left["data"].as_array().map(Vec::len), Some(6));
    assert_eq!(left["next"], Value::Null);

    tutorial.id_of("curl -X POST http://localhost:8001/services -d name=s -d url=http://localhost:9001");
    tutorial.id_of("curl -X POST http://localhost:8001/services/s/routes -d name=r -d 'paths[]=/'");
    tutorial.must_say_hello();
    let refused = tutorial.curl("curl -X DELETE http://localhost:8001/services/s").must_be(400).json();
    assert_eq!(refused["fields"], json!({"@referenced_by": "routes"}));
    tutorial.must_say_hello();
    tutorial.curl("curl -X DELETE http://localhost:8001/routes/r").must_be(204);
    tutorial.curl("curl http://localhost:8000/").must_be(404);
    tutorial.curl("curl -X DELETE http://localhost:8001/services/s").must_be(204);
    let empty = tutorial.curl("curl http://localhost:8001/services").must_be(200).json();
    assert_eq!(empty, json!({"data": [], "next": null}));
}
