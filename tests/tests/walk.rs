//! What of a context is looked at: folders that the ignore file leaves out, and in which nothing can be taken back in, are
//! not opened. The kernel is asked, through `strace`.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use kiln_tests::{machine, program::Build};

/// The names of the folders below `node_modules` that a build opens, with an ignore file of these lines.
fn opened(ignore: &str) -> BTreeSet<String> {
    let folder = tempfile::Builder::new().prefix("kiln-walk-").tempdir().expect("it can be written");
    let at = |path: &str| folder.path().join(path);
    for number in 0..20 {
        let inner = at(&format!("context/node_modules/package-{number}/library"));
        fs::create_dir_all(&inner).expect("its parent is empty");
        fs::write(inner.join("index.js"), "").expect("its folder is there");
    }
    for (path, text) in [
        ("context/src/main.c", "int x;"),
        ("context/docs/keep", "x"),
        ("context/Dockerfile", "FROM scratch\nCOPY . /\n"),
        ("context/.dockerignore", ignore),
    ] {
        fs::create_dir_all(at(path).parent().expect("it has one")).expect("its parent is there");
        fs::write(at(path), text).expect("its folder is there");
    }
    let calls = at("calls");
    let build = Build::new(&at("root"), &at("context")).argument("-o").argument("type=cacheonly").command();
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=openat,openat2", "-o"]).arg(&calls);
    if machine::is_user() {
        // What is traced by a user gains no rights, so newuidmap could give no sub-ids.
        traced.env("KILN_SANDBOX", "single");
    }
    let output = traced
        .arg(build.get_program())
        .args(build.get_args())
        .output()
        .expect("it was asked whether it is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = fs::read_to_string(&calls).expect("strace has written it");
    let names =
        calls.lines().filter(|line| line.contains("O_DIRECTORY")).filter_map(|line| line.split('"').nth(1));
    let last = names.filter_map(|path| path.rsplit('/').next());
    last.filter(|name| name.starts_with("package-") || *name == "library").map(str::to_owned).collect()
}

#[test]
fn folders_that_are_left_out_are_not_opened() {
    let test = "folders_that_are_left_out_are_not_opened";
    if let Some(reason) = machine::lacks("program:strace").or_else(|| untraced(Path::new("/bin/true"))) {
        return machine::skip(test, &reason);
    }
    // That folders are seen at all where nothing is left out shows that the names mean something.
    assert_eq!(opened("").len(), 21);
    for (ignore, expected) in [
        ("node_modules\n", &[][..]),
        ("**/node_modules\n", &[]),
        ("node_modules\n!docs/keep\n", &[]),
        ("node_modules\n!*.md\n", &[]),
        ("node_modules\n!src/[ab]/x\n", &[]),
        ("*\n!src\n", &[]),
        ("*\n!src/**\n", &[]),
        // Something may be taken back in from one of them.
        ("node_modules\n!node_modules/package-7\n", &["library", "package-7"]),
        ("node_modules\n!node_modules/package-7/**\n", &["library", "package-7"]),
    ] {
        let found: Vec<String> = opened(ignore).into_iter().collect();
        assert_eq!(found, expected, "{ignore:?}");
    }
}

/// Why a program cannot be traced here.
fn untraced(program: &Path) -> Option<String> {
    let run = Command::new("strace").args(["-qq", "-o", "/dev/null"]).arg(program).output();
    match run {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("strace: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("strace: {error}")),
    }
}
