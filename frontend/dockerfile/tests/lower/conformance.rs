//! The small texts of the conformance suite, and what BuildKit v0.32.2 made of them: config, history, count of layers.

use dockerfile::{LayoutVersion, NamedContext, Request};
use graph::Op;
use serde_json::{Value, json};

use crate::support::{amd64, lower_rounds};

/// `name`, `dockerfile`, and either `fails` (`reading`, `building`, or the code of the error here) or `config`,
/// `history` (without the base image's) and `layers`; with `build_args`, `labels`, `target`, `build_contexts`.
const CASES: &str = include_str!("conformance.json");

fn strings(case: &Value, key: &str) -> Vec<(String, String)> {
    let entries = case[key].as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned())).collect()
}

fn request(case: &Value) -> Request {
    let mut request = Request::new(amd64());
    request.build_args = strings(case, "build_args").into_iter().collect();
    request.labels = strings(case, "labels").into_iter().collect();
    request.target = case["target"].as_str().map(str::to_owned);
    for (name, value) in strings(case, "build_contexts") {
        let context = match value.strip_prefix("docker-image://") {
            Some(image) => NamedContext::Image(image.parse().expect("an image")),
            None => NamedContext::Local { ignore: Vec::new() },
        };
        request.named_contexts.insert(name, context);
    }
    // The suite is run with the base image in a layout.
    let layout = NamedContext::OciLayout {
        store: "base".to_owned(),
        version: LayoutVersion::Tag("busybox:latest".to_owned()),
    };
    request.named_contexts.insert("busybox".to_owned(), layout);
    request
}

fn check(case: &Value) -> Result<(), String> {
    let text = case["dockerfile"].as_str().expect("a text");
    let fails = case["fails"].as_str();
    if fails == Some("reading") {
        return match dockerfile_parser::parse(text.as_bytes()) {
            Ok(_) => Err("it was read".to_owned()),
            Err(_) => Ok(()),
        };
    }
    dockerfile_parser::parse(text.as_bytes()).map_err(|errors| format!("it cannot be read: {errors:?}"))?;
    let lowered = match (lower_rounds(text, &request(case)), fails) {
        (Ok(_), Some("building")) => return Ok(()),
        (Ok(_), Some(code)) => return Err(format!("it was lowered, not refused with {code}")),
        (Ok((lowered, _)), None) => lowered,
        (Err(error), Some(code)) if error.code() == code => return Ok(()),
        (Err(error), _) => return Err(format!("{} ({})", error, error.code())),
    };
    let image = &lowered.images[&amd64()];
    let bytes = image.config.bytes();
    let config: Value = serde_json::from_slice(&bytes).expect("a config is JSON");
    let mut ours = config["config"].clone();
    // The suite does not compare it.
    ours.as_object_mut().expect("an object").remove("ArgsEscaped");
    let history: Vec<&Value> = config["history"].as_array().into_iter().flatten().collect();
    let own: Vec<Value> = history
        .iter()
        .filter(|entry| entry["comment"] == "buildkit.dockerfile.v0")
        .map(|entry| entry["created_by"].clone())
        .collect();
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    let mut wrong = Vec::new();
    for (what, ours, theirs) in [
        ("config", ours, &case["config"]),
        ("history", Value::Array(own), &case["history"]),
        ("layers", json!(layers), &case["layers"]),
        ("layers of the graph", json!(layers_of(&lowered, image)), &case["layers"]),
    ] {
        if ours != *theirs {
            wrong.push(format!("{what}\n   ours   {ours}\n   theirs {theirs}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// How many layers the graph will give: one for each vertex from the image's edge down through root file systems.
fn layers_of(lowered: &dockerfile::Lowered, image: &dockerfile::LoweredImage) -> usize {
    let mut layers = 0;
    let mut next = image.edge;
    while let Some(edge) = next {
        let vertex = lowered.graph.vertex(edge.vertex);
        layers += match &vertex.op {
            Op::Source(_) => image.base_layers,
            _ => 1,
        };
        let on_input = |on: &graph::ActionInput| matches!(on, graph::ActionInput::Input(_));
        next = match &vertex.op {
            Op::Source(_) | Op::Diff => None,
            Op::Exec(exec) => exec.mounts[0].input.map(|input| vertex.inputs[input]),
            Op::Merge => vertex.inputs.first().copied(),
            Op::File(file) => file
                .actions
                .iter()
                .any(|action| match action {
                    graph::FileAction::Copy { on, .. }
                    | graph::FileAction::MakeDirectory { on, .. }
                    | graph::FileAction::MakeFile { on, .. }
                    | graph::FileAction::Remove { on, .. }
                    | graph::FileAction::Symlink { on, .. } => on_input(on),
                })
                .then(|| vertex.inputs[0]),
        };
    }
    layers
}

#[test]
fn configs_and_histories_are_buildkits() {
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("the cases are JSON");
    assert_eq!(cases.len(), 100);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| check(case).err().map(|why| format!("{}: {why}", case["name"])))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
