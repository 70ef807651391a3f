//! Error bodies of the operator's own form (spec/proxying.md section 7).

use crate::harness::Driver;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;

fn accepting(gateway: &Gateway, accept: &str) -> (String, String, String) {
    let response = gateway.connect().ask(format!("GET /none HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"));
    let response = response.must_be(404);
    let id = response.header("x-kong-request-id").expect("an id").to_owned();
    (response.header("content-type").unwrap_or_default().to_owned(), response.text(), id)
}

#[test]
fn templates_are_filled_with_the_escaped_message_and_the_id() {
    let mut gateway = Gateway::unstarted(
        Driver::any(),
        &[("error_template_html", "e.html"), ("error_template_json", "e.json"), ("error_template_plain", "e.txt")],
    );
    let write = |gateway: &Gateway, name: &str, text: &str| {
        std::fs::write(gateway.prefix().join(name), text).expect("the prefix can be written to");
    };
    write(&gateway, "e.html", "<p style=\"width: 50%%\">%s</p><i>%s</i>");
    write(&gateway, "e.json", "{\"error\":\"%s\",\"id\":\"%s\"}");
    write(&gateway, "e.txt", "%s (%s)");
    gateway.restart();
    let (kind, text, id) = accepting(&gateway, "text/html");
    assert_eq!(kind, "text/html; charset=utf-8");
    assert_eq!(text, format!("<p style=\"width: 50%\">no Route matched with those values</p><i>{id}</i>"));
    let (_, text, id) = accepting(&gateway, "application/json");
    assert_eq!(text, format!("{{\"error\":\"no Route matched with those values\",\"id\":\"{id}\"}}"));
    let (_, text, id) = accepting(&gateway, "application/xml");
    assert!(text.contains(&format!("<requestid>{id}</requestid>")), "{text}");
    // A page of the HTTP layer, which names no format.
    let page = gateway.connect().ask("GET / HTTP/1.1\r\n\r\n").must_be(400);
    let id = page.header("x-kong-request-id").expect("an id").to_owned();
    assert_eq!(page.text(), format!("Bad request ({id})"));
    // A reload reads the files again.
    write(&gateway, "e.txt", "new: %s %s");
    gateway.signal(libc::SIGHUP);
    eventually("the new template", || accepting(&gateway, "text/plain").1.starts_with("new: ").then_some(()));
}

#[test]
fn a_template_that_cannot_be_used_keeps_the_node_from_starting() {
    for (text, want) in [
        (None, "No such file or directory"),
        (Some("only %s"), "it has 1 %s instead of two"),
        (Some("%s\n%s\n50%;"), "line 3: \"%;\" means nothing; write %% for a percent sign"),
    ] {
        let mut gateway = Gateway::unstarted(Driver::any(), &[("error_template_xml", "e.xml")]);
        if let Some(text) = text {
            std::fs::write(gateway.prefix().join("e.xml"), text).expect("the prefix can be written to");
        }
        gateway.spawn();
        assert!(!gateway.wait().success());
        let log = gateway.log();
        assert!(log.contains("error_template_xml") && log.contains(want), "{log}");
    }
}
