//! Mounts as tables.

use super::*;

fn parse(text: &str) -> Result<MountKind, ErrorKind> {
    Mount::parse(text, Span::new(3, 9)).map(|mount| mount.kind).map_err(|error| error.kind)
}

fn bind(target: &str, source: &str, from: Option<&str>, readonly: bool) -> MountKind {
    MountKind::Bind(BindMount {
        target: target.into(),
        source: source.into(),
        from: from.map(Into::into),
        readonly,
    })
}

#[test]
fn bind_mounts() {
    let cases = [
        ("target=/a", bind("/a", "", None, true)),
        ("type=bind,dst=/a,src=b,from=c", bind("/a", "b", Some("c"), true)),
        ("TYPE=Bind,Destination=/a,rw", bind("/a", "", None, false)),
        ("target=/a,ro=false", bind("/a", "", None, false)),
        ("target=/a,readwrite=0", bind("/a", "", None, true)),
        ("target=/a,target=/b", bind("/b", "", None, true)),
        ("\"target=/a,b\"", bind("/a,b", "", None, true)),
        ("target=a=b", bind("a=b", "", None, true)),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn cache_and_tmpfs_mounts() {
    let cache = CacheMount {
        target: "/c".into(),
        id: Some("i".into()),
        sharing: Sharing::Locked,
        mode: Some(0o750),
        uid: Some(1),
        gid: Some(2),
        from: Some("s".into()),
        source: "p".into(),
        readonly: false,
    };
    let text = "type=cache,target=/c,id=i,sharing=Locked,mode=0750,uid=1,gid=2,from=s,source=p";
    assert_eq!(parse(text), Ok(MountKind::Cache(cache)));
    let tmpfs = |size_bytes| TmpfsMount { target: "/t".into(), size_bytes, readonly: false };
    let readonly = TmpfsMount { readonly: true, ..tmpfs(None) };
    assert_eq!(parse("type=tmpfs,target=/t,ro"), Ok(MountKind::Tmpfs(readonly)));
    let tmpfs = |size_bytes| Ok(MountKind::Tmpfs(tmpfs(size_bytes)));
    for unlimited in ["type=tmpfs,target=/t", "type=tmpfs,target=/t,size=0", "type=tmpfs,source=/,target=/t"]
    {
        assert_eq!(parse(unlimited), tmpfs(None), "{unlimited}");
    }
    for (size, bytes) in
        [("1048576", 1 << 20), ("64m", 64 << 20), ("1.5 GiB", 3 << 29), ("2KB", 2048), ("7b", 7)]
    {
        assert_eq!(parse(&format!("type=tmpfs,target=/t,size={size}")), tmpfs(Some(bytes)), "{size}");
    }
    for size in ["", "m", "-1", "1x", "1mm", "1 m b", "1ib", "1e300g", "nan"] {
        assert!(parse(&format!("type=tmpfs,target=/t,size={size}")).is_err(), "{size}");
    }
}

#[test]
fn secret_and_ssh_mounts() {
    let secret = |id: &str, target: Option<&str>, env: Option<&str>| SecretMount {
        id: id.into(),
        target: target.map(Into::into),
        env: env.map(Into::into),
        required: false,
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    let cases = [
        ("id=a", secret("a", Some("/run/secrets/a"), None)),
        ("id=a/b", secret("a/b", Some("/run/secrets/b"), None)),
        ("source=a", secret("a", Some("/run/secrets/a"), None)),
        ("target=/x/y", secret("y", Some("/x/y"), None)),
        ("id=a,env=A", secret("a", None, Some("A"))),
        ("id=a,env=A,target=/f", secret("a", Some("/f"), Some("A"))),
        ("id=a,required", SecretMount { required: true, ..secret("a", Some("/run/secrets/a"), None) }),
        (
            "id=a,required=false,mode=444",
            SecretMount { mode: 0o444, ..secret("a", Some("/run/secrets/a"), None) },
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(&format!("type=secret,{text}")), Ok(MountKind::Secret(expected)), "{text}");
    }
    let ssh = SshMount { id: "default".into(), target: None, required: true, mode: 0o600, uid: 5, gid: 0 };
    assert_eq!(parse("type=ssh,required=1,uid=5"), Ok(MountKind::Ssh(ssh)));
}

#[test]
fn what_is_refused() {
    let not_for = |key, kind| ErrorKind::OptionNotForType { key, kind };
    let cases = [
        ("type=volume", ErrorKind::MountType { value: "volume".into(), suggestion: None }),
        ("type=cahce", ErrorKind::MountType { value: "cahce".into(), suggestion: Some("cache".into()) }),
        ("required,type=secret,id=a", not_for("required", "bind")),
        ("size=1,type=tmpfs", not_for("size", "bind")),
        ("target=/a,mode=755", not_for("mode", "bind")),
        ("type=tmpfs,gid=1", not_for("gid", "tmpfs")),
        ("type=tmpfs,target=/t,source=/etc", not_for("source", "tmpfs")),
        ("target=/a,sharing=locked", not_for("sharing", "bind")),
        ("type=secret,id=a,sharing=locked", not_for("sharing", "secret")),
        ("type=secret,id=a,from=b", not_for("from", "secret")),
        ("type=ssh,source=b", not_for("source", "ssh")),
        ("type=secret", ErrorKind::SecretWithoutName),
        ("type=secret,id=a,source=b", ErrorKind::SecretSourceAndId),
        ("target", ErrorKind::OptionWithoutValue { flag: "mount", key: "target".into() }),
        ("", ErrorKind::UnknownOption { flag: "mount", key: String::new(), suggestion: None }),
        (
            "targt=/a",
            ErrorKind::UnknownOption {
                flag: "mount",
                key: "targt".into(),
                suggestion: Some("target".into()),
            },
        ),
        ("ro=maybe", ErrorKind::OptionValue { flag: "mount", key: "ro".into(), value: "maybe".into() }),
        (
            "type=cache,mode=9",
            ErrorKind::OptionValue { flag: "mount", key: "mode".into(), value: "9".into() },
        ),
        (
            "type=cache,uid=+1",
            ErrorKind::OptionValue { flag: "mount", key: "uid".into(), value: "+1".into() },
        ),
        (
            "type=cache,uid=",
            ErrorKind::OptionValue { flag: "mount", key: "uid".into(), value: String::new() },
        ),
        ("a\"b", ErrorKind::Csv { flag: "mount", reason: crate::csv::CsvError::StrayQuote }),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Err(expected), "{text}");
    }
}

#[test]
fn targets() {
    let target = |text: &str| Mount::parse(text, Span::default()).unwrap().target_in("/w/d");
    assert_eq!(target("target=/a/../b/"), Ok(Some("/b".into())));
    assert_eq!(target("target=../a"), Ok(Some("/w/a".into())));
    assert_eq!(target("source=a"), Ok(Some("/w/d".into())));
    assert_eq!(target("type=ssh"), Ok(None));
    for text in ["target=/", "target=//.", "target=../.."] {
        assert_eq!(target(text).map_err(|error| error.kind), Err(ErrorKind::MountTargetRoot), "{text}");
    }
}

#[test]
fn values_are_expanded_one_by_one() {
    let raw = RawMount::new(Word { text: "target=$T,src=$S,rw".into(), span: Span::new(10, 29) }).unwrap();
    let mut seen = Vec::new();
    let mount = raw.resolve::<ParseError>(&mut |word| {
        seen.push((word.text.clone(), word.span));
        Ok(word.text.replace("$T", "/a,b").replace("$S", "c"))
    });
    assert_eq!(mount.unwrap().kind, bind("/a,b", "c", None, false));
    assert_eq!(seen, [("$T".into(), Span::new(17, 19)), ("$S".into(), Span::new(24, 26))]);
    let raw = RawMount::new(Word { text: "target=/a,from=$I".into(), span: Span::new(10, 27) });
    assert_eq!(raw, Err(ParseError::new(ErrorKind::MountFromVariable, Span::new(20, 27))));
}
