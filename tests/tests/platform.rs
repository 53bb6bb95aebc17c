//! Steps for other machines than this: through an emulator that is registered with the kernel, and without one that they
//! can see. What needs no emulator is in `tests/fixtures/platform/`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use kiln_tests::{
    emulator::{self, Emulator},
    machine,
    program::{Build, Run},
};

/// What is registered holds for the whole machine, so that one test at a time may do it.
static TURN: Mutex<()> = Mutex::new(());

/// A context with a root file system for each of two machines, and room for a state folder and outputs.
struct Place {
    folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Place {
    /// None, with a reason, where this machine lacks something; programs for arm64 do not run here before.
    fn new(test: &str, dockerfile: &str) -> Option<Place> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let lack = || -> Result<(PathBuf, PathBuf), String> {
            machine::lacks("root: it registers an emulator with the kernel").map_or(Ok(()), Err)?;
            machine::lacks("busybox").map_or(Ok(()), Err)?;
            machine::lacks("refuses:arm64").map_or(Ok(()), Err)?;
            Ok((PathBuf::from("/bin/busybox"), emulator::busybox("arm64")?))
        };
        let (native, foreign) = match lack() {
            Ok(found) => found,
            Err(reason) => {
                machine::skip(test, &reason);
                return None;
            }
        };
        let folder = tempfile::Builder::new().prefix("kiln-platform-").tempdir().expect("it can be written");
        let place = Place { folder, _turn: turn };
        for (name, busybox) in [("native", native), ("arm64", foreign)] {
            let bin = place.path("context").join(name).join("bin");
            fs::create_dir_all(&bin).expect("its parent is empty");
            fs::copy(busybox, bin.join("busybox")).expect("both are there");
            for applet in ["sh", "uname", "cat"] {
                std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("its folder is new");
            }
        }
        fs::write(place.path("context/Dockerfile"), dockerfile).expect("its parent is there");
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Builds for these platforms into the folder `out`.
    fn build(&self, platforms: &str) -> Run {
        let base = machine::base_argument().expect("it was asked whether it is there");
        let build = Build::new(&self.path("root"), &self.path("context"))
            .argument("--build-context")
            .argument(base)
            .argument("--platform")
            .argument(platforms)
            .argument("-o")
            .argument(self.path("out"));
        build.run()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path("out").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// Registers the emulator for arm64; none, with a reason, where this machine cannot.
fn registered(test: &str, flags: &str) -> Option<Emulator> {
    Emulator::register("arm64", flags).map_err(|reason| machine::skip(test, &reason)).ok()
}

const TWO: &str = "\
FROM --platform=$BUILDPLATFORM busybox AS tools
RUN cat /proc/sys/kernel/random/uuid > /once
FROM scratch AS rootfs-arm64
COPY arm64 /
FROM scratch AS rootfs-amd64
COPY native /
FROM rootfs-$TARGETARCH
RUN uname -m > /machine
RUN --mount=from=tools,target=/tools /bin/cat /tools/once > /mounted
COPY --from=tools /once /once
";

#[test]
fn each_platform_runs_its_own_programs() {
    let test = "each_platform_runs_its_own_programs";
    let dockerfile = TWO.replace("amd64", oci_architecture());
    let Some(place) = Place::new(test, &dockerfile) else { return };
    let Some(_emulator) = registered(test, "F") else { return };
    let native = format!("linux/{}", oci_architecture());
    let run = place.build(&format!("linux/arm64,{native}"));
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let own = format!("linux_{}", oci_architecture());
    assert_eq!(place.read("linux_arm64/machine"), "aarch64\n");
    assert_eq!(place.read(&format!("{own}/machine")), format!("{}\n", std::env::consts::ARCH));
    // The stage for this machine is one for both platforms.
    for path in ["once", "mounted"] {
        assert_eq!(place.read(&format!("linux_arm64/{path}")), place.read(&format!("{own}/once")), "{path}");
    }
    let tools = run.ran().into_iter().filter(|name| name.contains("RUN cat /proc")).count();
    assert_eq!(tools, 1, "{:?}", run.ran());
    let again = place.build(&format!("{native},linux/arm64"));
    assert_eq!(again.ran(), [""; 0]);
}

/// The same files and the same command are another step for another platform; copies are shared.
#[test]
fn a_step_belongs_to_its_platform() {
    let test = "a_step_belongs_to_its_platform";
    let Some(place) = Place::new(test, "FROM scratch\nCOPY native /\nRUN uname -m > /machine\n") else {
        return;
    };
    for (platform, ran) in [("linux/riscv64", 2), ("linux/s390x", 1), ("linux/riscv64", 0)] {
        let run = place.build(platform);
        assert_eq!(
            (run.status, run.ran().len()),
            (Some(0), ran),
            "{platform}: {:?}\n{}",
            run.steps,
            run.stderr
        );
    }
}

#[test]
fn an_emulator_that_steps_do_not_see_is_told_of() {
    let test = "an_emulator_that_steps_do_not_see_is_told_of";
    let Some(place) = Place::new(test, "FROM scratch\nCOPY arm64 /\nRUN uname -m > /machine\n") else {
        return;
    };
    {
        let Some(_emulator) = registered(test, "") else { return };
        let run = place.build("linux/arm64");
        assert_eq!(run.status, Some(1), "{}", run.stderr);
        for part in ["error[foreign-platform]", "without flag F", "Dockerfile:3:1"] {
            assert!(run.stderr.contains(part), "{}", run.stderr);
        }
    }
    let run = place.build("linux/arm64");
    for part in ["error[foreign-platform]", "no emulator is registered", "tonistiigi/binfmt --install arm64"]
    {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
    // Once it is there, the build goes on from what it has.
    let Some(_emulator) = registered(test, "F") else { return };
    let run = place.build("linux/arm64");
    assert_eq!((run.status, run.ran().len()), (Some(0), 1), "{}", run.stderr);
    assert_eq!(place.read("machine"), "aarch64\n");
}

/// This machine's architecture as platforms have it.
fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    }
}

/// Entries of killed tests go, and none of ours stays.
#[test]
fn nothing_stays_registered() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let test = "nothing_stays_registered";
    if machine::lacks("root").is_some() || emulator::runs("riscv64") {
        return machine::skip(
            test,
            "needs root: it registers an emulator with the kernel; and one that is none yet",
        );
    }
    match Emulator::register("riscv64", "F") {
        Ok(emulator) => {
            assert!(emulator::runs("riscv64"));
            drop(emulator);
            assert!(!emulator::runs("riscv64"));
        }
        Err(reason) => machine::skip(test, &reason),
    }
    assert!(!Path::new("/proc/sys/fs/binfmt_misc").join("kiln-test").exists());
}
