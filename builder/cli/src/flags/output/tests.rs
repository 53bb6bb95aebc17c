use engine::DanglingName;
use image::{
    annotations::{AnnotationKey, Level},
    assemble::Dialect,
    compress::Codec,
};
use oci::Epoch;

use super::*;

fn to() -> Destination {
    Destination::Path("x".into())
}

fn image(push: Option<Push>, form: ImageForm) -> Output {
    Output::Image { store: true, push, form }
}

fn parsed(text: &str) -> Output {
    let asked = output(text, false).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(asked.warnings.is_empty(), "{text}: {:?}", asked.warnings);
    asked.output
}

#[test]
fn outputs_are_typed() {
    let form = ImageForm::default;
    let epoch = OutputEpoch::OfBuild;
    for (text, expected) in [
        ("type=oci,dest=x", Output::Oci { to: to(), archive: true, form: form() }),
        ("type=oci,dest=x,tar=false", Output::Oci { to: to(), archive: false, form: form() }),
        ("type=docker,dest=-", Output::Docker { to: Destination::Stdout, form: form() }),
        ("type=docker,dest=x,tar=true", Output::Docker { to: to(), form: form() }),
        ("type=docker", Output::DockerEngine { context: None, form: form() }),
        ("type=local,dest=x", Output::Local { to: "x".into(), platform_split: None, epoch }),
        (
            "type=local,dest=x,platform-split=false,mode=copy",
            Output::Local { to: "x".into(), platform_split: Some(false), epoch },
        ),
        (
            "type=tar,dest=x,platform-split=true,source-date-epoch=5",
            Output::Tar { to: to(), platform_split: Some(true), epoch: OutputEpoch::At(Epoch(5)) },
        ),
        ("x", Output::Local { to: "x".into(), platform_split: None, epoch }),
        ("-", Output::Tar { to: Destination::Stdout, platform_split: None, epoch }),
        ("type=cacheonly", Output::CacheOnly),
        ("type=image", Output::store()),
        ("type=image,unpack=true,name-canonical=true", Output::store()),
        (
            "type=registry,store=false,push-by-digest=true",
            Output::Image {
                store: false,
                push: Some(Push { by_digest: true, insecure: false }),
                form: form(),
            },
        ),
        ("type=image,push=true", image(Some(Push::default()), form())),
        (
            "type=image,push=1,registry.insecure=T",
            image(Some(Push { by_digest: false, insecure: true }), form()),
        ),
    ] {
        assert_eq!(parsed(text), expected, "{text}");
    }
}

#[test]
fn an_images_form_is_typed() {
    let form = ImageForm::default;
    let names = |names: &[&str]| names.iter().map(|name| Reference::parse(name).expect(name)).collect();
    let docker = || ImageForm { dialect: Dialect::Docker, ..form() };
    let dangling = |only_unnamed| {
        let prefix = Reference { tag: None, ..Reference::parse("a/b").expect("a name") };
        ImageForm { dangling: Some(DanglingName { prefix, only_unnamed }), ..form() }
    };
    for (text, expected) in [
        ("compression=zstd,compression-level=9", ImageForm { codec: Codec::Zstd { level: 9 }, ..form() }),
        ("\"name=a,b/c:1\"", ImageForm { names: names(&["a", "b/c:1"]), ..form() }),
        ("oci-mediatypes=false", docker()),
        ("compatibility-version=20", docker()),
        ("compatibility-version=20,oci-mediatypes=true", form()),
        ("compatibility-version=30", form()),
        ("source-date-epoch=7", ImageForm { epoch: OutputEpoch::At(Epoch(7)), ..form() }),
        ("source-date-epoch=", ImageForm { epoch: OutputEpoch::Unset, ..form() }),
        ("rewrite-timestamp=true", ImageForm { rewrite_timestamp: Some(true), ..form() }),
        ("prefer-nondist-layers=true", ImageForm { prefer_foreign_layers: true, ..form() }),
        ("dangling-name-prefix=a/b", dangling(false)),
        ("dangling-name-prefix=a/b,danging-name-empty-only=true", dangling(true)),
        ("dangling-name-prefix=a/b,dangling-name-empty-only=true", dangling(true)),
    ] {
        assert_eq!(parsed(&format!("type=image,{text}")), image(None, expected), "{text}");
    }
    // A layout is OCI's whatever version is asked for.
    assert_eq!(
        parsed("type=oci,dest=x,compatibility-version=20"),
        Output::Oci { to: to(), archive: true, form: form() }
    );
}

#[test]
fn annotations_keep_their_case() {
    let text = "type=oci,dest=x,annotation.Org.Example=A,\"annotation-index[linux/amd64].b=c,d\"";
    let Output::Oci { form, .. } = parsed(text) else { panic!("{text}") };
    let of = |level| form.annotations.of(level, None);
    assert_eq!(of(Level::Manifest), [("Org.Example".to_owned(), "A".to_owned())].into());
    assert_eq!(of(Level::Index), [("b".to_owned(), "c,d".to_owned())].into());
    let key = AnnotationKey::new(Level::Index, Some("linux/amd64".parse().expect("one")), "b");
    assert_eq!(key.expect("a key").to_string(), "index[linux/amd64]:b");
}

#[test]
fn what_changes_nothing_is_told_by_name() {
    for (text, key) in [
        ("type=oci,dest=x,attestation-inline=true", "attestation-inline"),
        ("type=image,oci-artifact=true", "oci-artifact"),
        ("type=image,compression=estargz,oci-mediatypes=false", "oci-mediatypes"),
        ("type=image,buildinfo=true", "buildinfo"),
        ("type=image,buildinfo-attrs=true", "buildinfo-attrs"),
        ("type=image,push-by-digest=true", "push-by-digest"),
        ("type=image,registry.insecure=true", "registry.insecure"),
        ("type=local,dest=x,attestation-prefix=a-", "attestation-prefix"),
    ] {
        let warnings = output(text, false).unwrap_or_else(|error| panic!("{text}: {error}")).warnings;
        assert!(warnings[0].starts_with(&format!("`{key}` of ")), "{text}: {warnings:?}");
    }
    let pushed = output("type=image,push=false,push-by-digest=true", true).expect("valid");
    assert_eq!(pushed.output, image(Some(Push { by_digest: true, insecure: false }), ImageForm::default()));
    assert!(pushed.warnings.is_empty());
}

#[test]
fn every_known_key_is_taken() {
    for kind in ["image", "registry", "oci", "docker", "local", "tar"] {
        for key in known(kind) {
            let (key, value) = match key {
                "annotation" => ("annotation.a", "b"),
                "compatibility-version" => (key, "30"),
                "compression" => (key, "gzip"),
                "compression-level" | "source-date-epoch" => (key, "1"),
                "mode" => (key, "copy"),
                _ => (key, "true"),
            };
            let dest = if matches!(kind, "local" | "tar" | "oci") && key != "dest" { ",dest=x" } else { "" };
            let text = format!("type={kind}{dest},{key}={value}");
            assert!(output(&text, false).is_ok(), "{text}: {:?}", output(&text, false));
        }
    }
}

#[test]
fn what_cannot_be_meant_says_why() {
    for (text, why, help) in [
        ("type=oci", "no `dest`", ""),
        ("dest=x", "no `type`", ""),
        ("type=what,dest=x", "no type `what`", ""),
        ("type=iamge", "no type `iamge`", "-o type=image"),
        ("type=oci,dest", "`dest` needs a value", "dest=VALUE"),
        ("type=oci,dest=x,what=y", "no key `what`", "keys of `type=oci`: annotation, "),
        ("type=image,pussh=true", "did you mean `push`?", "-o type=image,push=true"),
        ("type=oci,dest=x,platform-split=false", "no key", ""),
        ("type=local,dest=x,platform-split=maybe", "neither true nor false", ""),
        ("type=local,dest=x,mode=delete", "not supported yet", "mode=copy"),
        ("type=local,dest=-", "standard output", ""),
        ("type=oci,dest=-,tar=false", "standard output", ""),
        ("type=oci,dest=x,dest=y", "given twice", ""),
        ("type=registry,dest=x", "no key", ""),
        ("type=oci,dest=x,compression=lzma", "lzma", ""),
        ("type=oci,dest=x,compression-level=99", "99", ""),
        ("type=image,name=a,b", "stands in quotes", "-o 'type=…,\"name=a,b\"'"),
        ("type=image,name=A", "lower-case", ""),
        (
            "type=image,name=a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "cannot have a digest",
            "",
        ),
        ("type=docker,dest=x,tar=false", "always one file", "type=oci,tar=false"),
        ("type=image,oci-artifact=true,oci-mediatypes=false", "contradicts", ""),
        ("type=image,compatibility-version=10", "not supported", "compatibility-version=20"),
        ("type=image,compatibility-version=31", "20 or 30", ""),
        ("type=image,source-date-epoch=now", "no number of seconds", ""),
        ("type=image,source-date-epoch=253402300800", "the year 9999", ""),
        ("type=image,annotation-layer.a=b", "no level", "annotation-manifest"),
        ("type=image,annotation.a b=c", "white space", ""),
        ("type=registry,name=a/b:1,push-by-digest=true", "`a/b:1` has a tag", ""),
    ] {
        let error = output(text, false).expect_err(text);
        assert!(error.why.contains(why), "{text}: {}", error.why);
        assert!(error.help.contains(help), "{text}: {}", error.help);
    }
    assert!(!has_tag("localhost:5000/a") && !has_tag("a") && has_tag("a:latest") && has_tag("h:5000/a:1"));
}
