//! Kiln and tools that others wrote read each other's images, by way of a registry: the quick part of
//! `tests/peers/matrix.sh`; `.ci/full` runs it with all peers.

use std::process::Command;

use kiln_tests::{
    machine,
    program::{program, workspace},
};

#[test]
fn peers_read_what_kiln_pushes_and_the_other_way_round() {
    const NAME: &str = "peers::peers_read_what_kiln_pushes_and_the_other_way_round";
    const PEERS: [&str; 2] = ["skopeo", "umoci"];
    let programs = PEERS.iter().chain(&["docker-registry", "python3"]).map(|name| format!("program:{name}"));
    let needs = ["root: the other tools unpack as root".to_owned(), "busybox".to_owned()];
    if let Some(reason) = needs.into_iter().chain(programs).find_map(|need| machine::lacks(&need)) {
        machine::skip(NAME, &reason);
        return;
    }
    let folder = tempfile::Builder::new().prefix("kiln-peers-").tempdir().expect("a temporary folder");
    let mut matrix = Command::new("bash");
    matrix.arg(workspace().join("tests/peers/matrix.sh")).arg(folder.path()).args(PEERS);
    for name in
        ["BUILDKIT_PROGRESS", "DOCKER_DEFAULT_PLATFORM", "KILN_ROOT", "KILN_LIMITS", "SOURCE_DATE_EPOCH"]
    {
        matrix.env_remove(name);
    }
    let said = matrix.env("KILN", program()).output().expect("bash is there");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{out}\n{err}");
    println!("{out}");
}
