//! What holds of every plan.

use proptest::prelude::*;

use super::*;

/// Words for `layer`, with few names, so that copies meet; nothing below what is no folder.
fn words() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "a.b", "c"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let kind = prop::sample::select(vec!["/", "/", "=x", "=y", "->a", "->/b/c", "->..", "->none"]);
    prop::collection::btree_map(path, kind, 0..9).prop_map(|entries| {
        let is_folder = |path: &str| entries.get(path).is_none_or(|kind| *kind == "/");
        let mut words: Vec<String> = Vec::new();
        for (path, kind) in &entries {
            let above: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            if above.iter().all(|at| is_folder(&path[..*at])) {
                words.extend(above.iter().map(|at| format!("{}/", &path[..*at])));
                words.push(format!("{path}{kind}"));
            }
        }
        words.join(" ")
    })
}

/// A source or a destination.
fn text() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "a.b", "*", "?", ".", "..", "new", "[a-b]"]);
    (prop::collection::vec(part, 0..4), any::<bool>())
        .prop_map(|(parts, slash)| format!("/{}{}", parts.join("/"), if slash { "/" } else { "" }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_plan_is_a_layer_with_all_its_bytes(
        base in words(), source in words(), archive in words(), from in prop::collection::vec(text(), 1..3), to in text(), plain in any::<bool>(),
    ) {
        let base = stack(&base);
        let archive = layer(&archive);
        let source = stack(&source);
        let mut spec = spec(&format!("{} {to}", from.join(" ")));
        spec.replace = plain;
        spec.contents_only = plain;
        spec.archives.insert(path("b"), Archive { layer: &archive, index: 1 });
        let mut planner = Planner::new(&base);
        let input = Input { stack: &source, index: 0, planned: None };
        // A copy that fails half-way leaves a layer as well.
        let _ = planner.copy(&input, &spec);
        let _ = planner.rm(&Rm { path: path("a/*"), wildcard: true, allow_missing: true });
        let _ = planner.copy(&input, &spec);
        let plan = planner.finish();
        prop_assert_eq!(Layer::decode(&plan.layer.encode()), Ok(plan.layer.clone()));
        let whole = base.with(Arc::new(plan.layer.clone()));
        for (path, node) in &plan.layer.entries {
            let is_first = matches!(node.kind, Kind::File { .. }) && node.hardlink.is_none();
            if is_first {
                let content = plan.contents.get(path);
                let Some(ContentSource::File { input, layer, path }) = content else { panic!("{path}: {content:?}") };
                let of = if input == 0 { source.layers().get(layer).map(|layer| &**layer) } else { Some(&archive) };
                let node = of.and_then(|layer| layer.get(&path));
                let is_file = node.is_some_and(|node| matches!(node.kind, Kind::File { .. }));
                prop_assert!(is_file);
            }
            for folder in path.ancestors() {
                let in_layer = folder.is_root() || plan.layer.get(&folder).is_some_and(Node::is_directory);
                prop_assert!(in_layer, "{} without {}", path, folder);
            }
            let seen = whole.lookup(path).map(|(_, node)| node.clone());
            prop_assert_eq!(seen.is_none(), node.kind == Kind::Whiteout);
        }
    }

    #[test]
    fn where_there_is_nothing_yet_a_copy_is_what_it_is_elsewhere(
        base in words(), source in words(), from in text(), to in text(), contents_only in any::<bool>(),
    ) {
        let (base, source) = (stack(&base), stack(&source));
        let mut spec = spec(&format!("{from} {to}"));
        spec.contents_only = contents_only;
        let planned = plan(&base, &source, &spec);
        // A pattern that leaves nothing out makes each path be looked at; of several mistakes in what a wildcard matches,
        // another one may then be told.
        let nothing = |_: &LayerPath| false;
        spec.exclude = Some(&nothing);
        if planned.is_ok() || !contains_wildcard(from.as_bytes()) {
            let told = |plan: Plan| (told(&plan), plan.layer);
            prop_assert_eq!(planned.map(told), plan(&base, &source, &spec).map(told));
        }
    }
}
