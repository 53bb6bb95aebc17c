//! Tags and referrers.

use oci::{Descriptor, Digest, Index, MediaType, Reference};

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

#[tokio::test]
async fn referrers_come_from_the_list_or_from_the_tag() {
    let subject = Digest::of(b"subject");
    let found = Descriptor::of(MediaType::manifest(), b"a signature");
    let index = Index::new(vec![found.clone()]).bytes();
    for by_tag in [false, true] {
        let index = index.clone();
        let wanted = match by_tag {
            true => format!("/v2/app/manifests/sha256-{}", subject.hex()),
            false => format!("/v2/app/referrers/{subject}"),
        };
        let server = Server::start(move |seen| match seen.path == wanted {
            true => Reply::new(200, index.clone()).with("Content-Type", MediaType::index().as_str()),
            false => Reply::new(404, ""),
        })
        .await;
        let referrers = client("").referrers(&repository(&server), subject).await.expect("a list");
        assert_eq!(referrers, std::slice::from_ref(&found));
        let none = client("").referrers(&repository(&server), Digest::of(b"other")).await.expect("a list");
        assert_eq!(none, []);
    }
}
