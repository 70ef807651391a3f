//! Entities with ways of their own, asked directly: certificates and their names, authorities, keys, vaults.

use crate::control::admin::Admin;
use crate::control::admin::testing;
use crate::control::admin::testing::Fake;
use crate::control::admin::testing::ask;
use crate::control::admin::testing::get;
use crate::control::admin::testing::json;
use serde_json::Value;
use serde_json::json as value;
use tempfile::TempDir;

async fn admin() -> (TempDir, Admin<Fake>) {
    let directory = tempfile::tempdir().unwrap();
    let store = testing::store(directory.path()).await;
    (directory, testing::admin(store))
}

const CERT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/cert1.pem"));
const KEY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/key1.pem"));
const CA: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pem/ca.pem"));

#[tokio::test]
async fn certificates_in_use_stay_and_their_names_go_with_them() {
    let (_directory, admin) = admin().await;
    let body = value!({ "cert": CERT, "key": KEY, "snis": ["a.test", "b.test"] });
    let (status, created) = json(&admin, "POST", "/certificates", body).await;
    assert_eq!((status, &created["snis"]), (201, &value!(["a.test", "b.test"])));
    let upstream = value!({ "name": "u", "client_certificate": { "id": created["id"] } });
    assert_eq!(json(&admin, "POST", "/upstreams", upstream).await.0, 201);
    let (status, refused) = json(&admin, "DELETE", "/certificates/a.test", Value::Null).await;
    assert_eq!((status, &refused["fields"]), (400, &value!({ "@referenced_by": "upstreams" })));
    let (status, page) = get(&admin, "/certificates/a.test/upstreams").await;
    assert_eq!((status, &page["data"][0]["name"]), (200, &value!("u")));
    let (status, shown) = get(&admin, "/upstreams/u/client_certificate").await;
    assert_eq!((status, &shown["id"]), (200, &created["id"]));

    let whole = value!({ "cert": CERT, "key": KEY });
    let path = format!("/certificates/{}", created["id"].as_str().unwrap());
    let (status, replaced) = json(&admin, "PUT", &path, whole.clone()).await;
    assert_eq!((status, &replaced["snis"]), (200, &value!([])), "PUT without names deletes them");
    assert_eq!(get(&admin, "/snis").await.1["data"], value!([]));
    let named = value!({ "cert": CERT, "key": KEY, "snis": "x.test" });
    let (status, added) = json(&admin, "PUT", "/certificates/y.test", named).await;
    assert_eq!((status, &added["snis"]), (200, &value!(["x.test", "y.test"])), "the name in the path joins the others");
    assert_eq!(json(&admin, "PATCH", "/certificates/y.test", value!({ "snis": null })).await.1["snis"], value!([]));
    assert_eq!(get(&admin, "/certificates/y.test/snis").await.1["message"], "SNI not found");
}

#[tokio::test]
async fn an_authority_that_a_service_lists_cannot_be_deleted() {
    let (_directory, admin) = admin().await;
    let (status, authority) = json(&admin, "POST", "/ca_certificates", value!({ "cert": CA })).await;
    assert_eq!(status, 201);
    let id = authority["id"].as_str().unwrap();
    let service = value!({ "host": "h", "protocol": "https", "ca_certificates": [id] });
    let (_, service) = json(&admin, "POST", "/services", service).await;
    let path = format!("/ca_certificates/{id}");
    let (status, refused) = json(&admin, "DELETE", &path, Value::Null).await;
    let text =
        format!("ca certificate {id} is still referenced by services (id = {})", service["id"].as_str().unwrap());
    assert_eq!((status, refused), (400, value!({ "code": 19, "name": "referenced by others", "message": text })));
    let unnamed = value!({ "id": "expected a valid UUID" });
    assert_eq!(get(&admin, "/ca_certificates/name").await.1["fields"], unnamed);
    assert_eq!(
        json(
            &admin,
            "PATCH",
            &format!("/services/{}", service["id"].as_str().unwrap()),
            value!({ "ca_certificates": null })
        )
        .await
        .0,
        200
    );
    assert_eq!(ask(&admin, "DELETE", &path, &[], "").await.status, 204);
}

#[tokio::test]
async fn keys_are_unique_within_their_set_and_go_with_it() {
    let (_directory, admin) = admin().await;
    assert_eq!(json(&admin, "POST", "/key-sets", value!({ "name": "s" })).await.0, 201);
    let jwk = r#"{"kid":"k","kty":"RSA","n":"AQAB","e":"AQAB"}"#;
    let key = value!({ "kid": "k", "jwk": jwk });
    assert_eq!(json(&admin, "POST", "/keys", key.clone()).await.0, 201);
    let (status, refused) = json(&admin, "POST", "/keys", key.clone()).await;
    assert_eq!((status, &refused["fields"]), (409, &value!({ "kid": "k", "set": null })));
    assert_eq!(json(&admin, "POST", "/key-sets/s/keys", key).await.0, 201);
    assert_eq!(ask(&admin, "DELETE", "/key-sets/s", &[], "").await.status, 204);
    assert_eq!(get(&admin, "/keys").await.1["data"].as_array().unwrap().len(), 1);
    assert_eq!(get(&admin, "/schemas/vaults/env").await.0, 200);
    assert_eq!(get(&admin, "/schemas/vaults/hcv").await.1["message"], "No vault named 'hcv'");
    let (status, _) = json(&admin, "POST", "/schemas/vaults/validate", value!({ "name": "env", "prefix": "m1" })).await;
    assert_eq!(status, 200);
}
