//! Steps that may do what only root may.

use std::{
    fs::{self, File},
    process::{Command, Output},
};

use kiln_tests::{
    machine,
    program::{kiln, said},
};

/// The shell's exit status where the machine has no loop device to give.
const NO_LOOP: &str = "exit code: 42";

#[test]
fn what_is_mounted_from_the_layer_is_written_before_the_layer_is_read() {
    let test = "insecure::what_is_mounted_from_the_layer_is_written_before_the_layer_is_read";
    if machine::cannot(test, ["root: a step has all rights over the machine", "busybox", "program:mkfs.ext4"])
    {
        return;
    }
    let folder = tempfile::Builder::new().prefix("kiln-insecure-").tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("context")).expect("an empty place");
    let disk = path("context/disk");
    File::create(&disk).and_then(|file| file.set_len(64 << 20)).expect("made");
    let made = Command::new("mkfs.ext4").arg("-q").arg(&disk).status().expect("it is on the PATH");
    assert!(made.success());
    let dockerfile = "FROM busybox\nCOPY disk /disk\n\
        RUN --security=insecure mkdir /mnt && { mount -t ext4 -o loop /disk /mnt || exit 42; } && \
        dd if=/dev/urandom of=/mnt/file bs=1M count=40\n";
    fs::write(path("context/Dockerfile"), dockerfile).expect("written");
    let build = |output: &str| -> Output {
        let mut command = kiln();
        command.arg("--root").arg(path("root")).args([
            "build",
            "--progress=plain",
            "--allow=security.insecure",
        ]);
        command.args(["--build-context", &machine::base_argument().expect("it was found")]);
        let output = output.replace("PLACE", &folder.path().display().to_string());
        command.args(["-o", &output]).arg(path("context")).output().expect("the program was built")
    };
    let first = build("type=oci,dest=PLACE/image.tar");
    if said(&first).contains(NO_LOOP) {
        return machine::skip(test, "no loop device can be mounted");
    }
    assert!(first.status.success(), "{}", said(&first));
    // What is made of the blob again has to be what the manifest says.
    fs::remove_dir_all(path("root/layers"))
        .and_then(|()| fs::create_dir(path("root/layers")))
        .expect("empty");
    let second = build("type=local,dest=PLACE/tree");
    assert!(second.status.success(), "{}", said(&second));
    assert!(said(&second).contains("CACHED"), "{}", said(&second));
}
