//! Every folder `tests/fixtures/<area>/<case>/` is a test named `area/case`; `kiln_tests::case` tells its form.
//!
//! What is in a case's `expect/` is compared: `graph.txt` (what the frontend asked for), `image.txt` (the image's
//! config, then a line a file), `documents.txt` (indexes and manifests, without digests and sizes), `stderr.txt` (what the user sees) and, of a case with `--call`, `stdout.txt` (the answer),
//! each of the last build that has one. `BLESS=1` writes them instead.
//!
//! `twice/area/case` builds the case two times, in two folders, state folders, time zones and umasks, with one and
//! with many threads: the two images have one digest.
//!
//! With `KILN_BIN` the cases run another build of the program, with `KILN_TEST_MODE` as another user: see `kiln_tests::mode`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_tests::asked;
use kiln_tests::case::{self, Case, Expected, Standing};
use kiln_tests::image::Image;
use kiln_tests::machine;
use kiln_tests::mode::{self, TestMode};
use kiln_tests::program::{Build, Run};
use kiln_tests::server::Server;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    let mode = TestMode::of_environment();
    for (name, folder) in cases() {
        // A case that cannot be read says so under its own name.
        let case = Case::read(&folder).unwrap_or_default();
        // What is expected is written by root's alone.
        let is_blessed = std::env::var_os("BLESS").is_some();
        for other in others(&name, &case).into_iter().filter(|other| *other != mode && !is_blessed) {
            trials.push(trial(format!("{}/{name}", other.name()), folder.clone(), other, check));
        }
        if case.not_in.contains_key(&mode) {
            continue;
        }
        // A case of several builds is about the cache, and may ask the clock to show which steps ran.
        if case.first.exit == 0 && case.then.is_empty() && !calls(&case.first) {
            trials.push(trial(format!("twice/{name}"), folder.clone(), mode, check_twice));
        }
        trials.push(trial(name, folder, mode, check));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// The modes in which a case is run beside being run as root.
fn others(name: &str, case: &Case) -> BTreeSet<TestMode> {
    if machine::is_user() {
        return BTreeSet::new();
    }
    let is_of_users = mode::OF_USERS.iter().any(|area| name.split('/').next() == Some(area));
    let of_users = [TestMode::Subids, TestMode::Single].into_iter().filter(|_| is_of_users);
    let mut modes: BTreeSet<TestMode> = case.modes.iter().copied().chain(of_users).collect();
    // What is said of a root without some capabilities is not said of a user.
    modes.retain(|mode| !case.not_in.contains_key(mode) && case.without_capabilities.is_empty());
    modes
}

fn trial(
    name: String,
    folder: PathBuf,
    mode: TestMode,
    check: fn(&Path, TestMode) -> Result<(), Failed>,
) -> Trial {
    Trial::ignorable_test(name.clone(), move || match first_lack(&folder, mode)? {
        Some(reason) => {
            machine::skip(&name, &reason);
            Ok(Completion::ignored_with(reason))
        }
        None => check(&folder, mode).map(|()| Completion::Completed),
    })
}

fn cases() -> Vec<(String, PathBuf)> {
    let folders = |path: &Path| {
        let entries = fs::read_dir(path).expect("the fixtures are in the repository");
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        names.sort();
        names
    };
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let cases = folders(&top).into_iter().flat_map(|area| folders(&area));
    let name =
        |path: &Path| path.strip_prefix(&top).expect("a case is below the fixtures").display().to_string();
    cases.map(|path| (name(&path), path)).collect()
}

fn first_lack(folder: &Path, mode: TestMode) -> Result<Option<String>, Failed> {
    let case = Case::read(folder)?;
    if mode != TestMode::Root && !case.without_capabilities.is_empty() {
        return Ok(Some("it is about a root without all capabilities".to_owned()));
    }
    let of_case = || case.needs.iter().find_map(|need| machine::lacks(need));
    Ok(mode.lacks().or_else(of_case))
}

/// Builds a case two times in different surroundings; the images must have one digest.
fn check_twice(folder: &Path, mode: TestMode) -> Result<(), Failed> {
    let case = Case::read(folder)?;
    let mut digests = Vec::new();
    for (zone, mask, cores) in [("UTC", "022", "0"), ("Pacific/Chatham", "077", "0-1")] {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let copy = scratch.path().join("case");
        case::copy(folder, &copy).map_err(|error| format!("copying the case: {error}"))?;
        if let Some(script) = &case.setup {
            case::set_up(script, &copy)?;
        }
        let server = serve(&case, &copy)?;
        let arguments = case.first.args.as_deref().unwrap_or_default();
        let build =
            prepare(&case, mode, arguments, &Given::of(&case.first), server.as_ref(), scratch.path())?;
        let kiln = build.command();
        let mut surrounded = Command::new("sh");
        surrounded.args(["-c", "umask $0; c=$1; shift; exec taskset -c \"$c\" \"$@\"", mask, cores]);
        surrounded.arg(kiln.get_program()).args(kiln.get_args());
        surrounded.envs(&build.env);
        surrounded.env("TZ", zone).env("SOURCE_DATE_EPOCH", "1700000000").stdin(build.stdin());
        let output = surrounded.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} in {zone}:\n{stderr}", output.status).into());
        }
        digests.push(
            Image::read(&scratch.path().join("image.tar")).map_err(|error| error.to_string())?.manifest,
        );
    }
    if digests[0] == digests[1] {
        Ok(())
    } else {
        Err(format!("two builds, two digests: {digests:?}").into())
    }
}

/// What the builds of one case said last.
#[derive(Default)]
struct Observed {
    server: Option<Server>,
    given: Given,
    image: Option<Image>,
    stdout: Option<String>,
    stderr: Option<String>,
}

/// What the builds of one case are given besides their flags; each takes over what it does not say itself.
#[derive(Default)]
struct Given {
    env: BTreeMap<String, String>,
    context: Option<String>,
    stdin: Option<String>,
    output: Option<String>,
}

impl Given {
    fn of(build: &Expected) -> Given {
        let mut given = Given::default();
        given.take(build);
        given
    }

    fn take(&mut self, build: &Expected) {
        self.env.extend(build.env.clone());
        self.context = build.context.clone().or(self.context.take());
        self.stdin = build.stdin.clone().or(self.stdin.take());
        self.output = build.output.clone().or(self.output.take());
    }
}

/// Whether something is asked instead of built.
fn calls(build: &Expected) -> bool {
    let mut arguments = build.args.iter().flatten();
    arguments.any(|argument| argument == "--check" || argument.starts_with("--call="))
}

/// Runs the builds of a case one after the other, then compares what came out with `expect/`.
fn check(folder: &Path, mode: TestMode) -> Result<(), Failed> {
    let case = Case::read(folder)?;
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let copy = scratch.path().join("case");
    case::copy(folder, &copy).map_err(|error| format!("copying the case: {error}"))?;
    if let Some(script) = &case.setup {
        case::set_up(script, &copy)?;
    }
    let has_base = case.needs.iter().any(|need| need == "busybox");
    let expects_graph = folder.join("expect/graph.txt").exists()
        || std::env::var_os("BLESS").is_some() && folder.join("Dockerfile").exists();
    if expects_graph && case.first.exit == 0 && !calls(&case.first) {
        let graph = asked::graph(&copy, case.first.args.as_deref().unwrap_or_default(), has_base)?;
        compare(folder, "graph.txt", &graph)?;
    }
    let mut observed = Observed { server: serve(&case, &copy)?, ..Observed::default() };
    let arguments = case.first.args.as_deref().unwrap_or_default();
    build(&case, mode, arguments, &case.first, scratch.path(), &mut observed)?;
    for (number, then) in case.then.iter().enumerate() {
        then.edit(&copy).map_err(|error| format!("edits of build {}: {error}", number + 2))?;
        let arguments = then.expected.args.as_deref().or(case.first.args.as_deref()).unwrap_or_default();
        build(&case, mode, arguments, &then.expected, scratch.path(), &mut observed)
            .map_err(|failed| format!("build {}: {}", number + 2, failed.message().unwrap_or_default()))?;
    }
    let base_layers = usize::from(has_base);
    // The steps of a case of several builds may take something random, to show whether they ran.
    if let (Some(image), true) = (&observed.image, case.then.is_empty()) {
        compare(folder, "image.txt", &image.show(base_layers).map_err(|error| error.to_string())?)?;
    }
    // Of most cases the documents say nothing new.
    if let (Some(image), true) = (&observed.image, folder.join("expect/documents.txt").exists()) {
        compare(folder, "documents.txt", &image.documents)?;
    }
    if let Some(stdout) = &observed.stdout {
        compare(folder, "stdout.txt", stdout)?;
    }
    match &observed.stderr {
        Some(stderr) => compare(folder, "stderr.txt", stderr),
        None => Ok(()),
    }
}

/// What serves the case's folder, where it has one.
fn serve(case: &Case, copy: &Path) -> Result<Option<Server>, Failed> {
    let start = |folder: &String| Server::start(&copy.join(folder)).map_err(|error| error.to_string());
    Ok(case.serve.as_ref().map(start).transpose()?)
}

/// The build of a case's copy in `scratch`, with its output beside the copy.
fn prepare(
    case: &Case,
    mode: TestMode,
    arguments: &[String],
    given: &Given,
    server: Option<&Server>,
    scratch: &Path,
) -> Result<Build, Failed> {
    let copy = scratch.join("case");
    let keys = given.output.as_deref().unwrap_or_default();
    let mut build = Build::new(&scratch.join("root"), &copy.join("context"))
        .to_archive_with(&scratch.join("image.tar"), keys);
    build.mode = mode;
    build.without_capabilities.clone_from(&case.without_capabilities);
    build.env.clone_from(&given.env);
    build.stdin = given.stdin.as_ref().map(|file| copy.join(file));
    let url = server.map(Server::url).unwrap_or_default();
    let filled = |text: &str| text.replace("{case}", &copy.display().to_string()).replace("{server}", &url);
    if let Some(context) = &given.context {
        build.context = PathBuf::from(filled(context));
    }
    if server.is_some() {
        // No port, which is another each time, is to stand in a Dockerfile.
        build.env.insert("http_proxy".to_owned(), url.clone());
    }
    if copy.join("Dockerfile").exists() {
        build = build.argument("-f").argument(copy.join("Dockerfile"));
    }
    if case.needs.iter().any(|need| need == "busybox") {
        build = build.argument("--build-context").argument(machine::base_argument()?);
    }
    for argument in arguments {
        build = build.argument(filled(argument));
    }
    mode.own(scratch)?;
    Ok(build)
}

fn build(
    case: &Case,
    mode: TestMode,
    arguments: &[String],
    expected: &Expected,
    scratch: &Path,
    observed: &mut Observed,
) -> Result<(), Failed> {
    let (root, copy, archive) = (scratch.join("root"), scratch.join("case"), scratch.join("image.tar"));
    observed.given.take(expected);
    let run = prepare(case, mode, arguments, &observed.given, observed.server.as_ref(), scratch)?.run();
    let mut stderr = run
        .stderr
        .replace(&copy.display().to_string(), "{case}")
        .replace(&root.display().to_string(), "{root}");
    let asked = observed.server.as_ref().map(Server::take_log).unwrap_or_default();
    if let Some(server) = &observed.server {
        stderr = stderr.replace(&server.url(), "{server}");
    }
    check_run(&run, &stderr, expected)?;
    if expected.requests.as_ref().is_some_and(|wanted| *wanted != asked) {
        return Err(format!("asked {asked:?}, expected {:?}", expected.requests).into());
    }
    let called = calls(&Expected { args: Some(arguments.to_vec()), ..Expected::default() });
    if called {
        observed.stdout = Some(run.stdout.replace(&copy.display().to_string(), "{case}"));
    }
    if run.status != Some(0) {
        observed.stderr = Some(stderr);
        return Ok(());
    }
    if called {
        return Ok(());
    }
    let image = Image::read(&archive).map_err(|error| format!("the image: {error}"))?;
    if let (Some(standing), Some(before)) = (expected.digest, &observed.image) {
        let found = if before.manifest == image.manifest { Standing::Same } else { Standing::New };
        if found != standing {
            return Err(format!(
                "the image's digest is {found:?}, expected {standing:?}; ran: {:?}",
                run.ran()
            )
            .into());
        }
    }
    observed.image = Some(image);
    Ok(())
}

fn check_run(run: &Run, stderr: &str, expected: &Expected) -> Result<(), Failed> {
    if run.status != Some(expected.exit) {
        return Err(
            format!("exit {:?}, expected {}; standard error:\n{stderr}", run.status, expected.exit).into()
        );
    }
    if stderr.contains("panicked at") {
        return Err(format!("a panic:\n{stderr}").into());
    }
    if let Some(missing) = expected.stderr_has.iter().find(|part| !stderr.contains(*part)) {
        return Err(format!("standard error lacks `{missing}`:\n{stderr}").into());
    }
    if let Some(present) = expected.stderr_lacks.iter().find(|part| stderr.contains(*part)) {
        return Err(format!("standard error has `{present}`:\n{stderr}").into());
    }
    let Some(wanted) = &expected.ran else { return Ok(()) };
    let ran = run.ran();
    let each_wanted = wanted.iter().all(|part| ran.iter().any(|name| name.contains(part)));
    if ran.len() == wanted.len() && each_wanted {
        return Ok(());
    }
    Err(format!("ran {ran:?}, expected {wanted:?}; all: {:?}", run.steps).into())
}

/// Compares `actual` with the file of that name in the case's `expect/`, where there is one; `BLESS=1` writes it.
fn compare(folder: &Path, file: &str, actual: &str) -> Result<(), Failed> {
    let path = folder.join("expect").join(file);
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(folder.join("expect")).map_err(|error| error.to_string())?;
        return fs::write(&path, actual).map_err(|error| error.to_string().into());
    }
    match fs::read_to_string(&path) {
        Ok(expected) if expected != actual => Err(format!(
            "{} differs; `BLESS=1 cargo test -p kiln-tests --test fixtures` writes it, `git diff` shows it. Now:\n{actual}",
            path.display()
        )
        .into()),
        _ => Ok(()),
    }
}
