//! A registry that means harm gets an error: documents that lie, bodies without an end, redirects that would carry a login
//! away. The same documents as an OCI layout, where a layout can hold them.
//!
//! Layers that mean harm are in `hostile_layers`.

use std::{fs, time::Duration};

use kiln_tests::{
    hostile::{
        Answer, Asked, Body, Hostile,
        image::{Content, INDEX, Layer, MANIFEST, config, descriptor, digest},
        place::Place,
    },
    machine,
};
use serde_json::{Value, json};

/// Says why a test cannot run here, and whether.
fn cannot(test: &str) -> bool {
    machine::cannot(test, ["steps"])
}

const PULL: &str = "pull --progress plain IMAGE";
const BUILD: &str = "build --pull --progress plain PLACE/context";
const LOAD: &str = "load -i PLACE/layout";
const OF_LAYOUT: &str = "build --progress plain --build-context evil=oci-layout://PLACE/layout:1 -f PLACE/context/of-layout PLACE/context";

/// Contents that no way of taking an image takes, each with the words of which one is said.
fn refused_everywhere(cases: Vec<(&str, Content, &[&str])>) {
    for (case, content, says) in cases {
        let place = Place::new();
        place.serve(&content);
        content.write_layout(&place.path("layout")).expect("a layout");
        for words in [PULL, BUILD, LOAD, OF_LAYOUT] {
            place.refuses(case, words, says);
        }
    }
}

/// Answers that only a registry can give.
fn refused_by_wire(
    case: &str,
    says: &[&str],
    answer: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
) {
    let mut place = Place::new();
    // What looks like a connection that broke is tried again; once is enough to see it.
    fs::write(place.path("work"), "[transfer]\nretries = 1\n").expect("written");
    place.env = vec![("KILN_REGISTRIES", place.path("work").display().to_string())];
    place.registry.answer_with(answer);
    for words in [PULL, BUILD] {
        place.refuses(case, words, says);
    }
}

fn honest() -> Content {
    Content::of(vec![Layer::honest()])
}

/// The image with another blob under the digest that a document names.
fn swapped(pointer: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Content {
    let mut content = honest();
    let named = content.json("1").pointer(pointer).and_then(Value::as_str).expect("a digest").to_owned();
    let changed = change(content.blobs[&named].clone());
    content.blobs.insert(named, changed);
    content
}

fn one_byte_other(mut bytes: Vec<u8>) -> Vec<u8> {
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes
}

fn one_byte_more(bytes: Vec<u8>) -> Vec<u8> {
    [bytes, b" ".to_vec()].concat()
}

fn one_byte_less(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.pop();
    bytes
}

#[test]
fn what_is_not_what_it_is_said_to_be() {
    if cannot("hostile_registry::what_is_not_what_it_is_said_to_be") {
        return;
    }
    const CONFIG_DIGEST: &str = "/config/digest";
    const LAYER_DIGEST: &str = "/layers/0/digest";
    let sized = |pointer: &str, size: u64| {
        honest().changed(|manifest| *manifest.pointer_mut(pointer).expect("a size") = size.into())
    };
    let mut other_diff_id = vec![Layer::honest()];
    other_diff_id[0].diff_id = digest(b"another tar");
    let bytes: &[&str] = &["digest", "got sha256"];
    let length: &[&str] = &["bytes are too", "bytes long, and its descriptor says", "limit"];
    refused_everywhere(vec![
        ("config with another digest", swapped(CONFIG_DIGEST, one_byte_other), bytes),
        ("config that is longer", swapped(CONFIG_DIGEST, one_byte_more), &[bytes, length].concat()),
        ("layer with another digest", swapped(LAYER_DIGEST, one_byte_other), bytes),
        ("layer that is longer", swapped(LAYER_DIGEST, one_byte_more), &[bytes, length].concat()),
        ("layer that is shorter", swapped(LAYER_DIGEST, one_byte_less), &[bytes, length].concat()),
        ("layer said to be longer", sized("/layers/0/size", 1 << 40), length),
        ("layer said to be shorter", sized("/layers/0/size", 3), length),
        ("layer of all bytes there are", sized("/layers/0/size", u64::MAX), &["larger than any disk"]),
        ("config said to be longer", sized("/config/size", 5000), length),
    ]);
    // What `kiln load` keeps is packed; who unpacks it compares.
    let content = Content::of(other_diff_id);
    let place = Place::new();
    place.serve(&content);
    content.write_layout(&place.path("layout")).expect("a layout");
    place.refuses("another diff id", BUILD, &["expected content"]);
    place.refuses("another diff id", OF_LAYOUT, &["expected content"]);

    let lying = honest();
    refused_by_wire("manifest with another digest than told", &["digest"], move |asked| {
        let answer = lying.answer(asked)?;
        let told = ("docker-content-digest".to_owned(), digest(b"another"));
        let headers = answer.headers.into_iter().filter(|(name, _)| *name != told.0).chain([told.clone()]);
        Some(Answer { headers: headers.collect(), ..Answer::new(200, body_of(answer.body)) })
    });
    let place = Place::new();
    place.serve(&honest());
    let other = format!("pull {}@{}", place.image(), digest(b"another"));
    place.registry.answer_with(|asked| {
        honest().answer(&Asked { target: "/v2/evil/manifests/1".into(), ..asked.clone() })
    });
    place.refuses("manifest with another digest than asked for", &other, &["digest"]);
}

fn body_of(body: Body) -> Vec<u8> {
    match body {
        Body::Bytes(bytes) | Body::Endless(bytes) | Body::Dripping(bytes, _) => bytes,
    }
}

#[test]
fn documents_that_can_be_read_in_two_ways() {
    if cannot("hostile_registry::documents_that_can_be_read_in_two_ways") {
        return;
    }
    let two: &[&str] =
        &["manifests", "announced as", "an index", "a manifest", "duplicate field", "missing field"];
    let text = |text: String| {
        let content = honest();
        let media_type = content.tags["1"].0.clone();
        content.document("1", &media_type, text)
    };
    let twice = |field: &str| {
        let honest = honest().json("1").to_string();
        text(honest.replacen('{', &format!("{{\"{field}\":[],"), 1))
    };
    let as_index = honest();
    let inner = as_index.blobs[&as_index.tags["1"].1].clone();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, &inner)]});
    refused_everywhere(vec![
        ("manifest with `manifests`", honest().changed(|one| one["manifests"] = json!([])), two),
        ("manifest that says it is an index", honest().changed(|one| one["mediaType"] = INDEX.into()), two),
        ("index announced as a manifest", as_index.clone().document("1", MANIFEST, index.to_string()), two),
        (
            "index with layers",
            as_index.clone().document("1", INDEX, {
                let mut index = index.clone();
                index["layers"] = honest().json("1")["layers"].clone();
                index.to_string()
            }),
            two,
        ),
        ("two lists of layers", twice("layers"), two),
        ("no JSON", text("<html>".into()), &["not a valid", "no image"]),
        ("nested too deep", text(format!("{{\"x\":{}", "[".repeat(1 << 20))), &["not a valid", "no image"]),
        (
            "schema 1",
            text(json!({"schemaVersion": 1, "name": "evil", "fsLayers": [], "history": []}).to_string()),
            &["schema 1", "missing field", "no image"],
        ),
        (
            "no config",
            honest().changed(|one| drop(one.as_object_mut().expect("an object").remove("config"))),
            &["config", "no image"],
        ),
        (
            "a size below 0",
            honest().changed(|one| one["layers"][0]["size"] = (-1).into()),
            &["not a valid", "no image"],
        ),
        (
            "a digest of another kind",
            honest().changed(|one| one["layers"][0]["digest"] = "md5:00".into()),
            &["not a valid", "no image"],
        ),
        (
            "a digest that is a path",
            honest().changed(|one| one["layers"][0]["digest"] = "sha256:../../../canary".into()),
            &["not a valid", "no image"],
        ),
    ]);
}

#[test]
fn absurd_numbers() {
    if cannot("hostile_registry::absurd_numbers") {
        return;
    }
    let many = |count: usize| {
        let honest = Layer::honest();
        let more = Layer { blob: None, ..honest.clone() };
        Content::of([vec![honest], vec![more; count - 1]].concat())
    };
    let layers = vec![Layer::honest()];
    let with_config = |change: &dyn Fn(&mut Value)| {
        let mut config = config(&layers);
        change(&mut config);
        Content::with_config(layers.clone(), config.to_string().into_bytes())
    };
    let nested = |depth: usize| {
        (0..depth).fold(honest(), |content, _| {
            let inner = content.blobs[&content.tags["1"].1].clone();
            let media_type = content.tags["1"].0.clone();
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(&media_type, &inner)]});
            content.document("1", INDEX, index.to_string())
        })
    };
    refused_everywhere(vec![
        ("ten thousand layers", many(10_000), &["10000 layers"]),
        (
            "more diff ids than layers",
            with_config(&|one| one["rootfs"]["diff_ids"] = json!([digest(b"a"), digest(b"b")])),
            &["diff ids"],
        ),
        ("no diff ids", with_config(&|one| one["rootfs"]["diff_ids"] = Value::Null), &["diff ids"]),
        (
            "diff id that is none",
            with_config(&|one| one["rootfs"]["diff_ids"] = json!(["../x"])),
            &["not a valid"],
        ),
        (
            "config that is too long",
            with_config(&|one| one["x"] = "x".repeat(9 << 20).into()),
            &["limit", "larger than"],
        ),
        ("an index 64 deep", nested(64), &["more than", "nested"]),
    ]);

    // An index of very many entries is longer than any document; of many, it is read.
    let entries = |count: usize| {
        let entry = |at: usize| {
            let mut entry = descriptor(MANIFEST, format!("{at}").as_bytes());
            entry["platform"] = json!({"os": format!("os-{at}"), "architecture": "\u{1b}[2J\u{202e}"});
            entry
        };
        let manifests: Vec<Value> = (0..count).map(entry).collect();
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string()
    };
    let place = Place::new();
    for (case, count, says) in
        [("100,000 entries", 100_000, "larger than"), ("10,000 entries", 10_000, "and 9984 more")]
    {
        place.serve(&Content::default().document("1", INDEX, entries(count)));
        place.refuses(case, PULL, &[says]);
        place.refuses(case, BUILD, &[says]);
    }
    // A document of documents, each of which names the next so often that all ways through them are more than a clock counts.
    let wide = (0..7).fold(honest(), |content, at| {
        let inner = content.blobs[&content.tags["1"].1].clone();
        let media_type = content.tags["1"].0.clone();
        let entries = vec![descriptor(&media_type, &inner); 1000];
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, "annotations": {"at": at.to_string()}});
        content.document("1", INDEX, index.to_string())
    });
    wide.write_layout(&place.path("layout")).expect("a layout");
    let loaded = place.kiln(LOAD);
    place.harmless("1000^7 ways", &loaded);
    assert!(loaded.status.is_some(), "{loaded:#?}");
}

#[test]
fn bodies_without_an_end() {
    if cannot("hostile_registry::bodies_without_an_end") {
        return;
    }
    let part = [b'x'; 64 << 10];
    let endless = |of: &'static str| {
        move |asked: &Asked| match asked.target.contains(of) && asked.method == "GET" {
            true => Some(Answer::endless(200, &part).typed(MANIFEST)),
            false => honest().answer(asked),
        }
    };
    let content = honest();
    let blob = |pointer: &str| {
        content.json("1").pointer(pointer).and_then(Value::as_str).expect("a digest").to_owned()
    };
    refused_by_wire("endless manifest", &["larger than"], endless("/manifests/"));
    for (case, digest) in
        [("endless config", blob("/config/digest")), ("endless layer", blob("/layers/0/digest"))]
    {
        refused_by_wire(case, &["too many"], endless(Box::leak(digest.into_boxed_str())));
    }
    refused_by_wire("endless refusal", &["not found"], move |_| Some(Answer::endless(404, &part)));
    refused_by_wire("endless token", &["token"], move |asked| {
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"x\"", asked.headers["host"]);
        Some(match asked.target.starts_with("/token") {
            true => Answer::endless(200, &part),
            false => Answer::new(401, "").with("www-authenticate", realm),
        })
    });
    refused_by_wire("a megabyte of headers", &["connection", "answer"], |asked| {
        Some(honest().answer(asked)?.with("x-large", "x".repeat(1 << 20)))
    });
    refused_by_wire("an answer without an end of its head", &["connection"], |_| {
        Some((0..10_000).fold(Answer::new(200, ""), |answer, at| answer.with("x-more", at.to_string())))
    });
}

#[test]
fn bytes_that_drip() {
    if cannot("hostile_registry::bytes_that_drip") {
        return;
    }
    let mut place = Place::new();
    fs::write(place.path("work"), "[transfer]\nidle_seconds = 1\nretries = 1\n").expect("written");
    place.env = vec![("KILN_REGISTRIES", place.path("work").display().to_string())];
    place.registry.answer_with(|asked| {
        let answer = honest().answer(asked)?;
        // Two bytes a second are never idle.
        Some(Answer {
            body: Body::Dripping(body_of(answer.body), Duration::from_millis(500)),
            ..Answer::new(200, "")
        })
    });
    place.refuses("dripping manifest", PULL, &["it sent only"]);
}

#[test]
fn lists_of_tags() {
    let place = Place::new();
    let list = |body: &str| Answer::new(200, body).typed("application/json");
    type List = fn(&Asked) -> Answer;
    let cases: [(&str, List, &str); 5] = [
        ("endless", |_| Answer::endless(200, &[b' '; 64 << 10]), "larger than"),
        (
            "a page that is its own next",
            |asked| {
                Answer::new(200, r#"{"tags":["a"]}"#)
                    .with("link", format!("<{}>; rel=\"next\"", asked.target))
            },
            "the same page",
        ),
        (
            "pages without an end",
            |asked| {
                let next = format!("<{}x>; rel=\"next\"", asked.target);
                Answer::new(200, r#"{"tags":["a"]}"#).with("link", next)
            },
            "pages",
        ),
        (
            "a page of another host",
            |_| Answer::new(200, r#"{"tags":[]}"#).with("link", "<http://127.0.0.1:1/x>; rel=\"next\""),
            "another host",
        ),
        (
            "orders to the terminal",
            |_| Answer::new(200, r#"{"tags":["a","\u001b[2J\u001b]0;x\u0007"]}"#),
            "is no tag",
        ),
    ];
    for (case, answer, says) in cases {
        place.registry.answer_with(move |asked| Some(answer(asked)));
        place.refuses(case, "tags IMAGE", &[says]);
    }
    place.registry.answer_with(move |_| Some(list(r#"{"tags":["b","a","a"]}"#)));
    assert_eq!(place.kiln("tags IMAGE").stdout, "a\nb\n");
}

#[test]
fn an_image_that_talks_to_the_terminal() {
    if cannot("hostile_registry::an_image_that_talks_to_the_terminal") {
        return;
    }
    const ORDER: &str = "\u{1b}[2J\u{9b}31m\u{202e}\u{7}";
    let layers = vec![Layer::honest()];
    let mut config = config(&layers);
    config["created"] = ORDER.into();
    config["author"] = ORDER.into();
    config["history"] = json!([{"created": ORDER, "created_by": format!("RUN {ORDER}"), "comment": ORDER}]);
    config["config"] = json!({
        "Labels": {ORDER: ORDER}, "Env": [format!("X={ORDER}")], "User": ORDER, "WorkingDir": format!("/{ORDER}"),
        "OnBuild": [format!("RUN {ORDER}"), format!("{ORDER} x")],
    });
    let content = Content::with_config(layers, config.to_string().into_bytes());
    let place = Place::new();
    place.serve(&content);
    for words in [
        PULL,
        "images",
        "images --json",
        "inspect IMAGE",
        "history IMAGE",
        "history --no-trunc IMAGE",
        "history --json IMAGE",
        "run IMAGE",
        BUILD,
        "rmi IMAGE",
    ] {
        let ended = place.kiln(words);
        place.harmless("orders in a config", &ended);
        assert!(ended.status.is_some(), "{ended:#?}");
    }
    let typed =
        |media_type: &str| content.clone().changed(|one| one["config"]["mediaType"] = media_type.into());
    place.serve(&typed(&format!("application/{ORDER}\nerror: give me your password")));
    let ended = place.refuses("orders in a media type", PULL, &["no container image"]);
    assert!(!ended.stderr.contains("\nerror: give"), "{}", ended.stderr);
    place.registry.answer_with(|_| {
        let said =
            json!({"errors": [{"code": ORDER, "message": format!("{ORDER}\nerror: give me your password")}]});
        Some(Answer::new(403, said.to_string()))
    });
    let ended = place.refuses("orders in a refusal", PULL, &["denies"]);
    assert!(!ended.stderr.contains("\nerror: give"), "{}", ended.stderr);
}

#[test]
fn urls_of_foreign_layers_are_not_asked() {
    if cannot("hostile_registry::urls_of_foreign_layers_are_not_asked") {
        return;
    }
    let bait = Hostile::start().expect("a free port");
    let mut layer = Layer::honest();
    layer.descriptor["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    layer.descriptor["urls"] = json!([format!("http://{}/layer", bait.host()), "file:///etc/passwd"]);
    let missing = layer.descriptor["digest"].as_str().expect("a digest").to_owned();
    layer.blob = None;
    let place = Place::new();
    place.serve(&Content::of(vec![layer]));
    for words in [PULL, BUILD] {
        let ended = place.refuses("a layer elsewhere", words, &["not found"]);
        assert!(ended.stderr.contains(&missing), "the layer is named:\n{}", ended.stderr);
    }
    assert!(bait.seen().is_empty(), "{:?}", bait.seen());
}

#[test]
fn manifests_are_only_what_their_index_names() {
    if cannot("hostile_registry::manifests_are_only_what_their_index_names") {
        return;
    }
    // An index cannot hold its own digest, but a registry can say so: what it then sends has another.
    let content = honest();
    let named = digest(b"nobody's");
    let entry = json!({"mediaType": INDEX, "digest": named, "size": 500});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let size = index.len();
    let index = index.replace("\"size\":500", &format!("\"size\":{size:03}"));
    let mut content = content.document("1", INDEX, index.clone());
    content.blobs.insert(named, index.into_bytes());
    refused_everywhere(vec![("an index that names itself", content, &["digest", "not a valid", "bytes"])]);
}

#[test]
fn what_refers_to_an_image_fits_into_memory() {
    if cannot("hostile_registry::what_refers_to_an_image_fits_into_memory") {
        return;
    }
    // Each is as large as a manifest may be; all are kept until the first is sent.
    let mut content = honest();
    let mut listed = Vec::new();
    for number in 0..17 {
        let mut document = content.json("1");
        document["annotations"] = json!({"number": number.to_string(), "text": "x".repeat(4_000_000)});
        let document = document.to_string();
        listed.push(descriptor(MANIFEST, document.as_bytes()));
        content.blobs.insert(digest(document.as_bytes()), document.into_bytes());
    }
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).to_string();
    let image = content.tags["1"].1.clone();
    let place = Place::new();
    place.registry.answer_with(move |asked| {
        if asked.method == "PUT" {
            return Some(Answer::new(201, ""));
        }
        let path = asked.target.split('?').next().unwrap_or_default();
        match path.rsplit_once("/referrers/") {
            Some((_, subject)) if subject == image => Some(Answer::new(200, list.clone()).typed(INDEX)),
            Some(_) => Some(Answer::new(200, r#"{"schemaVersion":2,"manifests":[]}"#).typed(INDEX)),
            None => content.answer(asked),
        }
    });
    place.refuses("17 referrers of 4 MB", "copy --progress plain --referrers IMAGE IMAGE-2", &["64 MiB"]);
}
