//! Engines that refuse, break off or are none: a socket that gives prepared answers.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    thread,
};

use docker::{Address, Archive, Engine, Error, ImageStore};

const PING: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK";
const PODMAN: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nLibpod-Api-Version: 5.0.0\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK";

fn json(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// A socket that gives one answer to each connection, in this order, once the head of its request was read.
fn engine(answers: Vec<String>) -> (tempfile::TempDir, Address) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    thread::spawn(move || {
        // The first connection only looks whether somebody is there.
        drop(listener.accept());
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let chunked = String::from_utf8_lossy(&head).to_lowercase().contains("chunked");
            let mut body = Vec::new();
            while chunked
                && !body.ends_with(b"0\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|read| read == 1)
            {
                body.push(byte[0]);
            }
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    (folder, Address::Socket(path))
}

async fn load(answer: &str) -> Result<(), Error> {
    let (_folder, at) = engine(vec![PING.into(), json("200 OK", "{}"), answer.to_owned()]);
    let engine = Engine::connect(&at).await.expect("it answers");
    let (writer, archive) = Archive::new();
    let writing = tokio::task::spawn_blocking(move || writer.end(Ok(())));
    let loaded = engine.load(archive, &|_| ()).await;
    writing.await.expect("it ended");
    loaded
}

#[tokio::test]
async fn what_is_no_engine_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = Address::Socket(folder.path().join("docker.sock"));
    let error = Engine::connect(&nobody).await.err().expect("nobody is there");
    assert!(matches!(error, Error::NotThere { forbidden: false, .. }), "{error}");

    let (_folder, at) = engine(vec![json("200 OK", "hello")]);
    let error = Engine::connect(&at).await.err().expect("it is none");
    assert!(error.to_string().contains("no Docker Engine"), "{error}");

    let (_folder, at) = engine(vec![String::new()]);
    let error = Engine::connect(&at).await.err().expect("it hangs up");
    assert!(matches!(error, Error::NotThere { .. }), "{error}");
}

#[tokio::test]
async fn an_engine_that_says_nothing_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("docker.sock");
    // Connections wait in its queue for ever.
    let _silent = UnixListener::bind(&path).expect("bound");
    let (started, limit) = (std::time::Instant::now(), std::time::Duration::from_secs(30));
    let error = Engine::connect(&Address::Socket(path)).await.err().expect("nobody answers");
    assert!(matches!(error, Error::NotThere { forbidden: false, .. }), "{error}");
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
}

#[tokio::test]
async fn who_keeps_the_images_is_told() {
    let containerd = r#"{"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#;
    for (answers, expected) in [
        (vec![PING.to_owned(), json("200 OK", "{}")], ImageStore::Layers),
        (vec![PING.to_owned(), json("200 OK", containerd)], ImageStore::Containerd),
        (vec![PODMAN.to_owned()], ImageStore::Other),
    ] {
        let (_folder, at) = engine(answers);
        assert_eq!(Engine::connect(&at).await.expect("it answers").store(), expected);
    }
}

#[tokio::test]
async fn a_load_that_fails_is_told_in_the_engines_words() {
    for (answer, says) in [
        (
            json("500 Internal Server Error", r#"{"message":"no space left on device"}"#),
            "no space left on device",
        ),
        (
            json("200 OK", "{\"status\":\"Loading layer\",\"id\":\"1\"}\n{\"error\":\"unexpected EOF\"}\n"),
            "unexpected EOF",
        ),
        (json("502 Bad Gateway", "<html>"), "502"),
        (json("200 OK", &"x".repeat(2 << 20)), "a line without an end"),
        (json("200 OK", "not json"), "something else than its API says"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}".to_owned(), "broke"),
        (String::new(), "broke"),
    ] {
        let error = load(&answer).await.expect_err(says).to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    load(&json("200 OK", "{\"stream\":\"Loaded image: a:b\\n\"}\r\n")).await.expect("it succeeds");
}

#[tokio::test]
async fn an_archive_that_cannot_be_read_is_the_cause() {
    let (_folder, at) = engine(vec![PING.into(), json("200 OK", "{}"), String::new()]);
    let engine = Engine::connect(&at).await.expect("it answers");
    let (writer, archive) = Archive::new();
    let writing =
        tokio::task::spawn_blocking(move || writer.end(Err(std::io::Error::other("the blob is gone"))));
    let error = engine.load(archive, &|_| ()).await.expect_err("it is broken");
    writing.await.expect("it ended");
    assert!(error.to_string().contains("the blob is gone"), "{error}");
}
