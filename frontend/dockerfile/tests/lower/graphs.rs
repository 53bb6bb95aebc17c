//! Texts and the graphs that they become: `graphs/*.txt`, a Dockerfile, a line `=== graph`, the graph.
//!
//! `BLESS=1` writes what is found into the files; the difference is then to be read.

use std::{env, fs, path::Path};

use dockerfile::{LayoutVersion, NamedContext, Request, print};

use crate::support::{amd64, lowered};

const MARK: &str = "=== graph\n";

/// What the texts may use: the contexts `folder` (with an ignore file) and `layout`, the argument `GIVEN`, a proxy.
fn request(name: &str) -> Request {
    let mut request = Request::new(amd64());
    request.ignore = vec!["*.o".to_owned()];
    request.named_contexts.insert("folder".to_owned(), NamedContext::Local { ignore: vec!["!x".to_owned()] });
    let version = LayoutVersion::Tag("v1".to_owned());
    let layout = NamedContext::OciLayout { store: "store".to_owned(), version };
    request.named_contexts.insert("layout".to_owned(), layout);
    request.build_args.insert("GIVEN".to_owned(), "from the request".to_owned());
    request.build_args.insert("https_proxy".to_owned(), "http://p".to_owned());
    if name.contains("platforms") {
        request.platforms = vec![amd64(), "linux/arm64".parse().expect("a platform")];
    }
    request
}

fn observe(name: &str, text: &str) -> String {
    let lowered = lowered(text, &request(name));
    let mut out = print::graph(&lowered.graph);
    for (platform, image) in &lowered.images {
        let edge = image.edge.map_or("nothing".to_owned(), |edge| edge.vertex.index().to_string());
        out.push_str(&format!("{platform} is {edge}, {} base layers\n", image.base_layers));
    }
    lowered
        .warnings
        .iter()
        .for_each(|warning| out.push_str(&format!("{}: {}\n", warning.rule.name, warning.message)));
    out
}

#[test]
fn texts_become_these_graphs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lower/graphs");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry of it").path())
        .collect();
    paths.sort();
    let mut wrong = Vec::new();
    for path in &paths {
        let case = fs::read_to_string(path).expect("a case");
        let (text, expected) = case.split_once(MARK).unwrap_or((&case, ""));
        let found = observe(&path.file_stem().expect("a name").to_string_lossy(), text);
        if env::var_os("BLESS").is_some() {
            fs::write(path, format!("{text}{MARK}{found}")).expect("the case can be written");
        } else if found != expected {
            wrong.push(format!("{}: found\n{found}", path.display()));
        }
    }
    assert!(paths.len() > 5, "where are the cases?");
    assert!(wrong.is_empty(), "see them with BLESS=1 and a diff\n{}", wrong.join("\n"));
}
