//! Docker's own registry behind a wire that breaks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use oci::{Digest, MediaType, Reference};
use registry::{Pushed, Sessions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    process::{Registry, installed},
    push::{bytes, descriptor, options, server},
    support::{amd64, client, image},
};

/// A wire to a registry that is cut each time so many bytes have gone up.
struct Wire {
    host: String,
    task: JoinHandle<()>,
    /// Bytes that went up in all.
    up: Arc<AtomicU64>,
}

impl Wire {
    async fn to(target: &str, cuts: u64, every: u64) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let (target, up, left) =
            (target.to_owned(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(cuts)));
        let counted = up.clone();
        let task = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let to = TcpStream::connect(&target).await.expect("the registry runs");
                tokio::spawn(pass(from, to, counted.clone(), left.clone(), every));
            }
        });
        Wire { host, task, up }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(from: TcpStream, to: TcpStream, up: Arc<AtomicU64>, cuts: Arc<AtomicU64>, every: u64) {
    let (mut client, mut to_client) = from.into_split();
    let (mut server, mut to_server) = to.into_split();
    let down = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut server, &mut to_client).await;
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = client.read(&mut buffer).await {
        let before = up.fetch_add(read as u64, Ordering::Relaxed);
        let crossed = every > 0 && before / every != (before + read as u64) / every;
        if crossed
            && cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        {
            down.abort();
            return;
        }
        if read == 0 || to_server.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to_server.shutdown().await;
    let _ = down.await;
}

/// Uploads that were not finished, in memory.
#[derive(Default)]
struct Remembered(Mutex<BTreeMap<(String, String, Digest), String>>);

impl Sessions for Remembered {
    fn held(&self, registry: &str, repository: &str, blob: Digest) -> Option<String> {
        self.0.lock().expect("held").get(&(registry.to_owned(), repository.to_owned(), blob)).cloned()
    }

    fn hold(&self, registry: &str, repository: &str, blob: Digest, address: Option<&str>) {
        let key = (registry.to_owned(), repository.to_owned(), blob);
        let mut all = self.0.lock().expect("held");
        match address {
            Some(address) => all.insert(key, address.to_owned()),
            None => all.remove(&key),
        };
    }
}

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn an_image_is_pushed_mounted_and_pulled() {
    if !installed(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start("", "", |_| {});
    let (client, image) = (client(""), image("linux/amd64"));
    let to = registry.reference("app:1");
    let config = oci::Descriptor::of(MediaType::config(), &image.config);
    let all = [(image.layer_descriptor(), &image.layer), (config, &image.config)];
    for (blob, bytes) in &all {
        let content = Bytes::copy_from_slice(bytes);
        let pushed = client.push_blob(&to, blob, &content, &options(&[], None)).await.expect("it is taken");
        assert_eq!(pushed, Pushed::Sent { from_byte: 0 });
    }
    client.push_document(&to, &MediaType::manifest(), &image.manifest).await.expect("it is taken");
    let resolved = client.resolve(&to, &amd64(), None).await.expect("it is there");
    assert_eq!(resolved.manifest_bytes, image.manifest);

    let copy = registry.reference("other/app:1");
    let (blob, bytes) = &all[0];
    let from = ["nowhere".to_owned(), "app".to_owned()];
    let content = Bytes::copy_from_slice(bytes);
    let pushed = client.push_blob(&copy, blob, &content, &options(&from, None)).await.expect("it is mounted");
    assert_eq!(pushed, Pushed::Mounted { from: "app".to_owned() });
    // The repository that has nothing to mount gave an upload instead, which is used.
    let pushed =
        client.push_blob(&registry.reference("new"), blob, &content, &options(&from[..1], None)).await;
    assert_eq!(pushed.expect("it is taken"), Pushed::Sent { from_byte: 0 });

    let error = client.push_document(&copy, &MediaType::manifest(), &image.manifest).await;
    let error = error.expect_err("the config is not there");
    assert!(error.to_string().contains("BLOB_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn a_break_costs_no_more_than_a_part() {
    let (server, state) = server(Box::new(|_, _| None)).await;
    let wire = Wire::to(&server.host, 3, 5 * MIB + 12_345).await;
    let bytes = bytes(20 << 20);
    let blob = descriptor(&bytes);
    let to: Reference = format!("{}/app", wire.host).parse().expect("a name");
    let content = Bytes::from(bytes.clone());
    client("").push_blob(&to, &blob, &content, &options(&[], None)).await.expect("it is taken");
    assert_eq!(state.lock().expect("held").blobs.get(&blob.digest.to_string()), Some(&bytes));
    let up = wire.up.load(Ordering::Relaxed);
    // Three parts of 1 MiB may have been lost, and what the sockets held.
    assert!((20 * MIB..27 * MIB).contains(&up), "{up} bytes went up");
}

#[tokio::test]
async fn a_registry_that_cannot_go_on_after_a_break_is_sent_all_again() {
    if !installed(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start("", "", |_| {});
    let bytes = bytes(20 << 20);
    let blob = descriptor(&bytes);
    let content = Bytes::from(bytes);
    for (cuts, goes) in [(2, true), (u64::MAX, false)] {
        let wire = Wire::to(&registry.host, cuts, 9 * MIB).await;
        let to: Reference = format!("{}/app{goes}", wire.host).parse().expect("a name");
        let pushed = client("").push_blob(&to, &blob, &content, &options(&[], None)).await;
        assert_eq!(pushed.is_ok(), goes, "{pushed:?}");
        let direct = registry.reference(&format!("app{goes}"));
        let there = client("").download(&direct, &blob, tokio::io::sink(), |_| {}).await;
        assert_eq!(there.is_ok(), goes, "{there:?}");
    }
}

#[tokio::test]
async fn what_an_earlier_run_sent_is_not_sent_again() {
    let (server, state) = server(Box::new(|_, _| None)).await;
    let wire = Wire::to(&server.host, 0, MIB).await;
    let bytes = bytes(40 << 20);
    let blob = descriptor(&bytes);
    let remembered = Remembered::default();
    let content = Bytes::from(bytes);
    let to: Reference = format!("{}/app", wire.host).parse().expect("a name");
    let first = client("");
    let how = options(&[], Some(&remembered));
    let half = async {
        while wire.up.load(Ordering::Relaxed) < 20 * MIB {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // The process is killed.
    tokio::select! {
        done = first.push_blob(&to, &blob, &content, &how) => panic!("it was not stopped: {done:?}"),
        () = half => {}
    }
    assert!(remembered.held(&wire.host, "app", blob.digest).is_some());

    let pushed = client("").push_blob(&to, &blob, &content, &options(&[], Some(&remembered))).await;
    let Ok(Pushed::Sent { from_byte }) = pushed else { panic!("{pushed:?}") };
    assert!(from_byte >= 15 * MIB, "it began at {from_byte}");
    assert_eq!(remembered.held(&wire.host, "app", blob.digest), None);
    assert_eq!(state.lock().expect("held").blobs.len(), 1);
}

#[tokio::test]
async fn an_upload_that_the_registry_forgot_is_begun_anew() {
    if !installed(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start("", "", |_| {});
    let bytes = bytes(3 << 20);
    let blob = descriptor(&bytes);
    let content = Bytes::from(bytes);
    for address in
        ["http://HOST/v2/app/blobs/uploads/5d2c1f4e-0000-4000-8000-000000000000?_state=x", "no address"]
    {
        let remembered = Remembered::default();
        let to = registry.reference(&format!("app{}", address.len()));
        remembered.hold(
            &to.registry,
            &to.repository,
            blob.digest,
            Some(&address.replace("HOST", &registry.host)),
        );
        let pushed = client("").push_blob(&to, &blob, &content, &options(&[], Some(&remembered))).await;
        assert_eq!(pushed.expect("it is taken"), Pushed::Sent { from_byte: 0 });
        assert_eq!(remembered.held(&to.registry, &to.repository, blob.digest), None);
    }
}
