//! oauth2 as applications and upstreams see it.

use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::plugins::directory::Credential;
use crate::plugins::directory::Directory;
use crate::plugins::grants::App;
use crate::plugins::grants::Code;
use crate::plugins::grants::Grant;
use crate::plugins::grants::Token;
use crate::plugins::oauth2::KIND;
use crate::plugins::rows::RowWrite;
use crate::plugins::testing::Exchange;
use crate::plugins::testing::NOW_UNIX_MS;
use crate::plugins::testing::plugin;

const SERVICE: Uuid = Uuid::from_u128(0x99);
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// All flows, one scope.
fn oauth2(mut config: Value) -> Box<dyn Plugin> {
    let usual = json!({
        "provision_key": "pk", "scopes": ["email", "profile"], "accept_http_if_already_terminated": true,
        "enable_authorization_code": true, "enable_implicit_grant": true, "enable_client_credentials": true,
        "enable_password_grant": true,
    });
    for (name, value) in usual.as_object().expect("an object") {
        if config.get(name).is_none() {
            config[name] = value.clone();
        }
    }
    plugin(&KIND, config)
}

/// Applications of alice: `conf` with the secret `s1`, `hashed`, `pub` without one; bob's `other`.
struct World {
    directory: Directory,
    plugin: Box<dyn Plugin>,
}

/// What came of a request.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    body: Value,
}

impl World {
    fn new(config: Value) -> Self {
        let mut directory = Exchange::new(&["GET /"]).directory;
        let apps = [(0x61, 1, "conf", false, false), (0x62, 1, "hashed", true, false), (0x63, 1, "pub", false, true)];
        for (id, owner, key, is_hashed, is_public) in apps.into_iter().chain([(0x64, 2, "other", false, false)]) {
            let uris = ["https://app.test/cb?x=1", "https://app.test/second"].map(Box::from).into();
            directory.apps.put(Credential {
                id: Uuid::from_u128(id),
                consumer: Uuid::from_u128(owner),
                key: key.into(),
                secret: App { secret: "s1".into(), is_hashed, is_public, redirect_uris: uris },
                expires_at_ms: None,
            });
        }
        Self { directory, plugin: oauth2(config) }
    }

    fn exchange(&self, lines: &[&str], body: &str) -> Exchange {
        let form = "Content-Type: application/x-www-form-urlencoded";
        let mut exchange = Exchange::new(&[lines, &[form, "X-Forwarded-Proto: https"]].concat()).with_body(body);
        exchange.directory = self.directory.clone();
        exchange.service = Some(SERVICE);
        exchange.peer_is_trusted = true;
        exchange
    }

    /// Asks an endpoint, and does what the control plane would.
    fn ask(&mut self, lines: &[&str], body: &str) -> Told {
        let mut exchange = self.exchange(lines, body);
        let mut verdict = exchange.access(&*self.plugin);
        while verdict == Verdict::Ask {
            let answer = match exchange.asking.take().map(|asking| asking.question) {
                Some(Question::Verify { secret, .. }) => Answer::Proved(secret.expose() == b"s1"),
                Some(Question::Write(rows)) => self.write(&rows),
                other => panic!("{other:?}"),
            };
            verdict = exchange.answered(&*self.plugin, answer);
        }
        assert_eq!(verdict, Verdict::Reply);
        let fields = exchange.reply_fields();
        assert!(fields.contains(&"Cache-Control: no-store".to_owned()), "{fields:?}");
        assert!(fields.contains(&"Pragma: no-cache".to_owned()), "{fields:?}");
        assert_eq!(
            fields.contains(&"WWW-Authenticate: Basic realm=\"OAuth2.0\"".to_owned()),
            exchange.reply.status == 401
        );
        let body = serde_json::from_slice(&exchange.reply.text).expect("an answer is JSON");
        Told { status: exchange.reply.status, body }
    }

    fn token(&mut self, body: &str) -> Told {
        self.ask(&["POST /api/oauth2/token"], body)
    }

    fn authorize(&mut self, body: &str) -> Told {
        self.ask(&["POST /api/oauth2/authorize/"], body)
    }

    fn write(&mut self, rows: &[RowWrite]) -> Answer {
        for row in rows {
            match row {
                RowWrite::Take { entity: "oauth2_tokens", id } => self.directory.oauth2_tokens.remove(*id),
                RowWrite::Take { id, .. } => {
                    if self.directory.codes.get(*id).is_none() {
                        return Answer::Gone;
                    }
                    self.directory.codes.remove(*id);
                }
                RowWrite::Insert { entity, fields, ttl_s } => {
                    let text = |name: &str| fields[name].as_str();
                    let id = |name: &str| fields[name]["id"].as_str().and_then(|id| id.parse().ok());
                    let grant = Grant {
                        app: id("credential").expect("it has an application"),
                        service: id("service"),
                        user: text("authenticated_userid").map(Into::into),
                        scope: text("scope").map(Into::into),
                    };
                    let (new, ends) = (Uuid::new_v4(), (*ttl_s > 0).then(|| NOW_UNIX_MS + ttl_s * 1000));
                    if *entity == "oauth2_tokens" {
                        let token = Token {
                            grant,
                            created_s: NOW_UNIX_MS / 1000,
                            expires_in_s: fields["expires_in"].as_u64().expect("a number"),
                            refresh_token: text("refresh_token").map(Into::into),
                        };
                        self.directory.oauth2_tokens.put(new, text("access_token"), token, ends);
                    } else {
                        let secret = Code { grant, challenge: text("challenge").map(Into::into) };
                        let key = text("code").expect("a code").into();
                        let code = Credential { id: new, consumer: Uuid::nil(), key, secret, expires_at_ms: ends };
                        self.directory.codes.put(code);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        Answer::Done
    }

    /// A call with that token, `seconds` from now: what the upstream is told, or the refusal.
    fn call(&self, token: &str, seconds: u64) -> Result<Vec<String>, String> {
        let mut exchange = self.exchange(&["GET /p", &format!("Authorization: Bearer {token}")], "");
        exchange.now_unix_ms = NOW_UNIX_MS + seconds * 1000;
        match exchange.access(&*self.plugin) {
            Verdict::Continue => {
                let told = exchange.fields().into_iter();
                Ok(told.filter(|line| line.starts_with("X-A") || line.starts_with("X-C")).collect())
            }
            _ => Err(exchange.reply_text()),
        }
    }
}

fn error(status: u16, error: &str, text: &str) -> Told {
    Told { status, body: json!({ "error": error, "error_description": text }) }
}

/// A parameter of the URI that a client is sent to.
fn parameter(told: &Told, mark: char, name: &str) -> Option<String> {
    let uri = told.body["redirect_uri"].as_str()?;
    let (_, list) = uri.split_once(mark)?;
    list.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).map(str::to_owned)
}

fn text<'a>(told: &'a Told, name: &str) -> &'a str {
    told.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {told:?}"))
}

const CLIENT: &str = "client_id=conf&client_secret=s1";

#[test]
fn an_application_gets_a_token_of_its_own() {
    let mut world = World::new(json!({}));
    let told = world.token(&format!("{CLIENT}&grant_type=client_credentials&scope=email%20profile&state=st"));
    assert_eq!(told.status, 200);
    assert_eq!(
        told.body,
        json!({
            "access_token": text(&told, "access_token"), "token_type": "bearer", "expires_in": 7200, "state": "st"
        })
    );
    let want = [
        "X-Consumer-ID: 00000000-0000-0000-0000-000000000001",
        "X-Consumer-Custom-ID: a1",
        "X-Consumer-Username: alice",
        "X-Credential-Identifier: conf",
    ];
    let seen = world.call(text(&told, "access_token"), 7200).expect("it passes");
    assert!(want.iter().all(|line| seen.contains(&line.to_string())), "{seen:?}");
    assert!(seen.contains(&"X-Authenticated-Scope: email profile".to_owned()), "{seen:?}");
    assert!(world.call(text(&told, "access_token"), 7201).is_err(), "it has expired");
    for (client, header) in [("client_id=hashed&client_secret=s1", "X: y"), ("", "Authorization: Basic Y29uZjpzMQ==")] {
        let told = world.ask(&["POST /oauth2/token", header], &format!("{client}&grant_type=client_credentials"));
        assert_eq!(told.status, 200, "{told:?}");
    }
    let by_query = world.ask(&[&format!("POST /oauth2/token?{CLIENT}&grant_type=client_credentials")], "");
    assert_eq!(by_query.status, 200);
}

#[test]
fn an_application_has_to_prove_who_it_is() {
    let mut world = World::new(json!({}));
    let denied = |status| error(status, "invalid_client", "Invalid client authentication");
    for client in [
        "client_id=conf&client_secret=zz",
        "client_id=zz&client_secret=s1",
        "client_id=conf",
        "",
        "client_id=hashed&client_secret=zz",
    ] {
        assert_eq!(world.token(&format!("{client}&grant_type=client_credentials")), denied(400), "{client}");
    }
    for basic in ["Y29uZjp6eg==", "eno6czE=", "!!"] {
        let header = format!("Authorization: Basic {basic}");
        assert_eq!(world.ask(&["POST /oauth2/token", &header], "grant_type=client_credentials"), denied(401));
    }
    let said = world.token("client_id=pub&client_secret=s1&grant_type=client_credentials");
    assert_eq!(said, error(400, "invalid_request", "client_secret is disallowed for public clients"));
    let said = world.token(&format!("{CLIENT}&grant_type=zz&state=st"));
    assert_eq!(
        said.body,
        json!({
            "error": "unsupported_grant_type", "error_description": "Invalid grant_type", "state": "st"
        })
    );
    let mut off = World::new(json!({ "enable_client_credentials": false, "enable_password_grant": false }));
    for kind in ["client_credentials", "password"] {
        let said = off.token(&format!("{CLIENT}&grant_type={kind}"));
        assert_eq!(said, error(400, "unsupported_grant_type", "Invalid grant_type"), "{kind}");
    }
}

#[test]
fn scopes_are_those_of_the_configuration() {
    let mut world = World::new(json!({ "mandatory_scope": true }));
    let mut ask = |scope: &str| world.token(&format!("{CLIENT}&grant_type=client_credentials{scope}"));
    assert_eq!(ask(""), error(400, "invalid_scope", "You must specify a scope"));
    assert_eq!(ask("&scope=email+zz"), error(400, "invalid_scope", "\"zz\" is an invalid scope"));
    assert_eq!(ask("&scope=a&scope=b"), error(400, "invalid_scope", "scope must be a string"));
    assert_eq!(ask("&scope=email").status, 200);
}

#[test]
fn the_operators_page_vouches_for_a_user() {
    let mut world = World::new(json!({}));
    let ask = format!("{CLIENT}&grant_type=password");
    let no_key = error(400, "invalid_provision_key", "Invalid provision_key");
    assert_eq!(world.token(&ask), no_key);
    assert_eq!(world.token(&format!("{ask}&provision_key=zz&authenticated_userid=u")), no_key);
    let no_user = error(400, "invalid_authenticated_userid", "Missing authenticated_userid parameter");
    assert_eq!(world.token(&format!("{ask}&provision_key=pk")), no_user);
    assert_eq!(world.token(&format!("{ask}&provision_key=pk&authenticated_userid=%20")), no_user);
    let told = world.token(&format!("{ask}&provision_key=pk&authenticated_userid=u7"));
    assert_eq!(told.status, 200, "{told:?}");
    let seen = world.call(text(&told, "access_token"), 0).expect("it passes");
    assert!(seen.contains(&"X-Authenticated-UserId: u7".to_owned()), "{seen:?}");
    let own = format!("{CLIENT}&grant_type=client_credentials&authenticated_userid=u7");
    assert_eq!(world.token(&own), no_key);
    assert_eq!(world.token(&format!("{own}&provision_key=pk")).status, 200);
}

#[test]
fn a_token_is_refreshed_once_or_as_often_as_configured() {
    for reuses in [false, true] {
        let mut world = World::new(json!({ "reuse_refresh_token": reuses }));
        let password = format!("{CLIENT}&grant_type=password&provision_key=pk&authenticated_userid=u7&scope=email");
        let first = world.token(&password);
        let refresh = format!("grant_type=refresh_token&refresh_token={}", text(&first, "refresh_token"));
        let denied = error(400, "invalid_client", "Invalid client authentication");
        assert_eq!(world.token(&format!("client_id=other&client_secret=s1&{refresh}")), denied);
        let wider = world.token(&format!("{CLIENT}&{refresh}&scope=profile"));
        assert_eq!(wider, error(400, "invalid_scope", "Scope mismatch"));
        let second = world.token(&format!("{CLIENT}&{refresh}&scope=email"));
        assert_eq!(second.status, 200, "{second:?}");
        assert_eq!(text(&second, "refresh_token") == text(&first, "refresh_token"), reuses);
        assert!(world.call(text(&first, "access_token"), 0).is_err(), "the old one is gone");
        let seen = world.call(text(&second, "access_token"), 0).expect("it passes");
        assert!(seen.contains(&"X-Authenticated-UserId: u7".to_owned()), "{seen:?}");
        let third = world.token(&format!("{CLIENT}&{refresh}"));
        match reuses {
            true => assert_eq!(third.status, 200),
            false => assert_eq!(third, error(400, "invalid_request", "Invalid refresh_token")),
        }
    }
}

#[test]
fn a_code_is_exchanged_once() {
    let mut world = World::new(json!({}));
    let ask = "provision_key=pk&authenticated_userid=u7&response_type=code&client_id=conf&scope=email&state=a%20b";
    let told = world.authorize(ask);
    assert_eq!(told.status, 200, "{told:?}");
    let uri = text(&told, "redirect_uri");
    assert!(uri.starts_with("https://app.test/cb?x=1&code=") && uri.ends_with("&state=a%20b"), "{uri}");
    let code = parameter(&told, '?', "code").expect("there is a code");
    let exchange = format!("grant_type=authorization_code&code={code}");
    let invalid = error(400, "invalid_request", "Invalid code");
    assert_eq!(world.token(&format!("client_id=other&client_secret=s1&{exchange}")), invalid);
    let elsewhere = world.token(&format!("{CLIENT}&{exchange}&redirect_uri=https://evil.test"));
    assert!(text(&elsewhere, "error_description").starts_with("Invalid redirect_uri that does not match"));
    let token = world.token(&format!("{CLIENT}&{exchange}"));
    let seen = world.call(text(&token, "access_token"), 0).expect("it passes");
    assert!(seen.contains(&"X-Authenticated-Scope: email".to_owned()), "{seen:?}");
    assert_eq!(world.token(&format!("{CLIENT}&{exchange}")), invalid);
}

#[test]
fn a_code_that_somebody_takes_at_the_same_time_is_invalid() {
    let mut world = World::new(json!({}));
    let told = world.authorize("provision_key=pk&authenticated_userid=u&response_type=code&client_id=conf");
    let code = parameter(&told, '?', "code").expect("there is a code");
    let body = format!("{CLIENT}&grant_type=authorization_code&code={code}");
    let mut exchange = world.exchange(&["POST /oauth2/token"], &body);
    assert_eq!(exchange.access(&*world.plugin), Verdict::Ask);
    assert_eq!(exchange.answered(&*world.plugin, Answer::Gone), Verdict::Reply);
    assert!(exchange.reply_text().contains("Invalid code"), "{}", exchange.reply_text());
    assert_eq!(exchange.access(&*world.plugin), Verdict::Ask);
    assert_eq!(exchange.answered(&*world.plugin, Answer::Failed("no disk".into())), Verdict::Reply);
    assert_eq!(exchange.reply.status, 500);
}

#[test]
fn a_token_may_be_given_to_the_browser() {
    let mut world = World::new(json!({}));
    let told = world.authorize("provision_key=pk&authenticated_userid=u&response_type=token&client_id=pub&state=s");
    let uri = text(&told, "redirect_uri");
    assert!(uri.starts_with("https://app.test/cb?x=1#access_token="), "{uri}");
    assert!(uri.ends_with("&token_type=bearer&expires_in=7200&state=s"), "{uri}");
    let token = parameter(&told, '#', "access_token").expect("there is a token");
    assert!(world.call(&token, 0).is_ok());
}

#[test]
fn what_is_wrong_with_an_authorization_is_told() {
    let mut world = World::new(json!({ "enable_implicit_grant": false }));
    let vouched = "provision_key=pk&authenticated_userid=u";
    assert_eq!(world.authorize(""), error(400, "invalid_provision_key", "Invalid provision_key"));
    let said = world.authorize("provision_key=pk&state=s");
    assert_eq!(said.body["state"], "s");
    assert_eq!(said.body["error"], "invalid_authenticated_userid");
    let denied = error(400, "invalid_client", "Invalid client authentication");
    assert_eq!(world.authorize(&format!("{vouched}&response_type=code&client_id=zz")), denied);
    for (more, code, description) in [
        ("response_type=token", "unsupported_response_type", "Invalid%20response_type"),
        ("response_type=code&scope=zz", "invalid_scope", "%22zz%22%20is%20an%20invalid%20scope"),
        ("response_type=code&redirect_uri=https://evil.test", "invalid_request", "Invalid%20redirect_uri%20that"),
    ] {
        let said = world.authorize(&format!("{vouched}&client_id=conf&{more}"));
        assert_eq!(said.status, 400);
        assert_eq!(parameter(&said, '?', "error").as_deref(), Some(code), "{said:?}");
        let told = parameter(&said, '?', "error_description").unwrap_or_default();
        assert!(told.starts_with(description), "{told}");
        assert!(text(&said, "redirect_uri").starts_with("https://app.test/cb?x=1&"), "never elsewhere");
    }
    let second =
        world.authorize(&format!("{vouched}&client_id=conf&response_type=code&redirect_uri=https://app.test/second"));
    assert!(text(&second, "redirect_uri").starts_with("https://app.test/second?code="));
}

#[test]
fn applications_prove_that_a_code_was_made_for_them() {
    let vouched = "provision_key=pk&authenticated_userid=u&response_type=code";
    let good = format!("code_challenge={CHALLENGE}&code_challenge_method=S256");
    // Mode, application, what it sends, whether a code follows.
    let cases = [
        ("lax", "conf", "", true),
        ("lax", "pub", "", false),
        ("lax", "pub", &*good, true),
        ("strict", "conf", "", false),
        ("strict", "conf", &good, true),
        ("none", "pub", "", true),
        ("lax", "conf", "code_challenge=x&code_challenge_method=plain", false),
        ("lax", "conf", "code_challenge=x", false),
        ("lax", "conf", "code_challenge_method=S256", false),
    ];
    for (mode, client, sent, passes) in cases {
        let mut world = World::new(json!({ "pkce": mode }));
        let said = world.authorize(&format!("{vouched}&client_id={client}&{sent}"));
        assert_eq!(said.status == 200, passes, "{mode} {client} {sent} {said:?}");
    }
    let mut world = World::new(json!({}));
    let told = world.authorize(&format!("{vouched}&client_id=pub&{good}"));
    let code = parameter(&told, '?', "code").expect("there is a code");
    let exchange = format!("client_id=pub&grant_type=authorization_code&code={code}");
    let missing = "code_verifier is required for PKCE authorization requests";
    assert_eq!(world.token(&exchange), error(400, "invalid_request", missing));
    let other = VERIFIER.replace('d', "e");
    for wrong in ["x", &other] {
        assert_eq!(world.token(&format!("{exchange}&code_verifier={wrong}")).body["error"], "invalid_grant");
    }
    assert_eq!(world.token(&format!("{exchange}&code_verifier={VERIFIER}")).status, 200);
}

#[test]
fn the_endpoints_are_secret_and_take_posts() {
    let mut world = World::new(json!({}));
    let body = format!("{CLIENT}&grant_type=client_credentials");
    for (name, path) in [("token", "/oauth2/token"), ("authorization", "/x/oauth2/authorize/")] {
        let told = world.ask(&[&format!("GET {path}")], "");
        let text = format!("The HTTP method GET is invalid for the {name} endpoint");
        assert_eq!(told, error(405, "invalid_method", &text));
    }
    let mut plain = world.exchange(&["POST /oauth2/token"], &body);
    plain.peer_is_trusted = false;
    assert_eq!(plain.access(&*world.plugin), Verdict::Reply);
    let want = json!({ "error": "access_denied", "error_description": "You must use HTTPS" });
    assert_eq!((plain.reply.status, plain.reply_text()), (400, want.to_string()));
    let strict = oauth2(json!({ "accept_http_if_already_terminated": false }));
    assert_eq!(world.exchange(&["POST /oauth2/token"], &body).access(&*strict), Verdict::Reply);
}

#[test]
fn calls_without_a_token_that_counts_are_refused() {
    let mut world = World::new(json!({}));
    let told = world.token(&format!("{CLIENT}&grant_type=client_credentials"));
    let token = text(&told, "access_token").to_owned();
    let bad = r#"{"error":"invalid_token","error_description":"The access token is invalid or has expired"}"#;
    let missing = r#"{"error":"invalid_request","error_description":"The access token is missing"}"#;
    let challenge_of_bad =
        "Bearer error=\"invalid_token\", error_description=\"The access token is invalid or has expired\"";
    for (line, body, challenge) in [
        ("X: y", missing, "Bearer"),
        ("Authorization:", missing, "Bearer"),
        ("Authorization: Bearer zz", bad, challenge_of_bad),
        ("Authorization: Basic zz", bad, challenge_of_bad),
    ] {
        let mut exchange = world.exchange(&["GET /p", line, "X-Authenticated-Scope: forged"], "");
        assert_eq!(exchange.access(&*world.plugin), Verdict::Reply, "{line}");
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (401, body), "{line}");
        assert_eq!(exchange.reply_fields(), [format!("WWW-Authenticate: {challenge}")]);
        let mut anonymous = world.exchange(&["GET /p", line, "X-Authenticated-Scope: forged"], "");
        assert_eq!(anonymous.access(&*oauth2(json!({ "anonymous": "anon" }))), Verdict::Continue);
        assert!(!anonymous.fields().iter().any(|line| line.contains("forged")));
    }
    let realm = oauth2(json!({ "realm": "r" }));
    let mut exchange = world.exchange(&["GET /p"], "");
    assert_eq!(exchange.access(&*realm), Verdict::Reply);
    assert_eq!(exchange.reply_fields(), ["WWW-Authenticate: Bearer realm=\"r\""]);
    let mut elsewhere = world.exchange(&["GET /p", &format!("Authorization: token {token}")], "");
    assert_eq!(elsewhere.access(&*world.plugin), Verdict::Continue);
    elsewhere.service = Some(Uuid::from_u128(1));
    assert_eq!(elsewhere.access(&*world.plugin), Verdict::Reply, "it counts for one service");
    world.directory.apps.remove(Uuid::from_u128(0x61));
    assert_eq!(world.call(&token, 0), Err(bad.to_owned()));
}

#[test]
fn a_token_may_count_for_all_services() {
    let mut world = World::new(json!({ "global_credentials": true, "hide_credentials": true, "token_expiration": 0 }));
    let told = world.token(&format!("{CLIENT}&grant_type=password&provision_key=pk&authenticated_userid=u"));
    assert_eq!((&told.body["expires_in"], &told.body["refresh_token"]), (&Value::Null, &Value::Null));
    let token = text(&told, "access_token");
    let body = format!("a=b&access_token={token}");
    let mut exchange = world.exchange(&[&format!("POST /p?access_token={token}&c=d")], &body);
    exchange.service = Some(Uuid::from_u128(1));
    exchange.now_unix_ms += 1_000_000_000_000;
    assert_eq!(exchange.access(&*world.plugin), Verdict::Continue);
    assert_eq!((exchange.edited_query(), exchange.edited_body()), (Some("c=d"), Some("a=b")));
    let local = oauth2(json!({}));
    let mut exchange = world.exchange(&["GET /p", &format!("Authorization: Bearer {token}")], "");
    assert_eq!(exchange.access(&*local), Verdict::Reply);
}
