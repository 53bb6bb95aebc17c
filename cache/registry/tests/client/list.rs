//! Tags.

use oci::Reference;

use crate::support::{Reply, Server, client};

fn repository(server: &Server) -> Reference {
    format!("{}/app", server.host).parse().expect("a name")
}

#[tokio::test]
async fn all_pages_of_tags_are_read() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/v2/app/tags/list?n=1000" => Reply::new(200, r#"{"name":"app","tags":["b","a"]}"#)
            .with("Link", "</v2/app/tags/list?n=1000&last=a>; rel=\"next\""),
        "/v2/app/tags/list?n=1000&last=a" => Reply::new(200, r#"{"name":"app","tags":["c","a"]}"#),
        _ => Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
    })
    .await;
    assert_eq!(client("").tags(&repository(&server)).await.expect("a list"), ["a", "b", "c"]);
    let none: Reference = format!("{}/none", server.host).parse().expect("a name");
    let error = client("").tags(&none).await.expect_err("no such repository");
    assert!(error.to_string().contains("NAME_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn an_endless_list_of_tags_on_another_host_is_refused() {
    let server = Server::start(|_| {
        Reply::new(200, r#"{"tags":null}"#).with("Link", "<http://127.0.0.1:1/x>; rel=\"next\"")
    })
    .await;
    let error = client("").tags(&repository(&server)).await.expect_err("another host");
    assert_eq!(error.code(), "registry-answer");
}
