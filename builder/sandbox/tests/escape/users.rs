//! The same attempts by a user who is not root, in the user namespace that Kiln enters then. With the whole plan each is refused. Then it
//! is tried without its guards, and what is said is told: the user namespace is a guard too, and of many attempts enough alone.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use sandbox::emulate::Emulation;
use sandbox::userns::{Asked, enter};
use sandbox::{Kernel, plan, start_on, start_plan};

use crate::cases::{CASES, Case, Guard};
use crate::support::{Step, chain};
use crate::{INSIDE, Place, said, sit_at_a_terminal, take_out};

/// Becomes a user whom no machine has, with sub-ids if that is asked for; `/etc` stays as it is.
const BECOME: &str = include_str!("../../../../tests/as-user.sh");

const USER: &str = "61184";

/// A mode of a user's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Subids,
    Single,
}

impl Mode {
    const ALL: [Mode; 2] = [Mode::Subids, Mode::Single];

    fn name(self) -> &'static str {
        match self {
            Mode::Subids => "subids",
            Mode::Single => "single",
        }
    }

    /// The one that this process is to try.
    pub fn asked() -> Option<Mode> {
        let asked = std::env::var(INSIDE).ok()?;
        Mode::ALL.into_iter().find(|mode| mode.name() == asked)
    }
}

/// Runs this program as a user, in namespaces that stand for the machine, for each mode.
pub fn in_machines_of_their_own() -> i32 {
    let needed = ["/usr/bin/setpriv", "/usr/bin/newuidmap", "/etc/subuid", "/etc/subgid"];
    if let Some(lacking) = needed.iter().find(|path| fs::metadata(path).is_err()) {
        println!("SKIP escapes of users: no {lacking}");
        return 0;
    }
    let program = std::env::current_exe().expect("there is /proc");
    let statuses = Mode::ALL.map(|mode| {
        println!("escapes in mode {}", mode.name());
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--ipc", "--uts", "sh", "-c", BECOME, "sh", USER]);
        command.args([mode.name(), ""]).arg(&program).env(INSIDE, mode.name());
        command.status().ok().and_then(|status| status.code()).unwrap_or(1)
    });
    statuses.into_iter().max().unwrap_or_default()
}

/// Tries all of them. The exit status.
pub fn main(mode: Mode) -> i32 {
    let Ok(_terminal) = sit_at_a_terminal() else {
        println!("SKIP escapes in mode {}: there is no terminal to be had", mode.name());
        return 0;
    };
    let wish = mode.name().parse().expect("it is a mode's name");
    let root = std::env::temp_dir().join(format!("kiln-escapes-{}", std::process::id()));
    let asked = Asked { wish, recorded: None, root, user: None };
    let entered = enter(&asked).unwrap_or_else(|lack| panic!("{lack}: {:?}", lack.fix()));
    let Some(mut step) = Step::new() else { return 0 };
    step.spec.mode = entered.mode;
    step.kernel = *Kernel::get();
    let Some(place) = Place::new(&mut step) else { return 0 };
    let (mut table, mut failed, mut enough) = (String::new(), 0, 0);
    for case in CASES {
        match place.tried(case, &mut step) {
            Ok(Tried { guarded, without }) => {
                println!("test {} in mode {} ... ok", case.name, mode.name());
                let alone = without.filter(|without| !without.starts_with("escaped"));
                enough += usize::from(alone.is_some());
                let alone = alone.map(|said| format!("; without the guards, {said}")).unwrap_or_default();
                table.push_str(&format!("{} {guarded}{alone}\n", case.name));
            }
            Err(why) => {
                println!("test {} in mode {} ... FAILED\n    {why}", case.name, mode.name());
                failed += 1;
            }
        }
    }
    drop(place);
    if let Some(file) = std::env::var_os("KILN_ESCAPES") {
        // The folder is root's, the file was made for this user.
        let file = format!("{}.{}", file.display(), mode.name());
        fs::write(file, table).expect("the table can be written");
    }
    println!("the user namespace alone refuses {enough} of {}", CASES.len());
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {result}. {} passed; {failed} failed", CASES.len() - failed);
    i32::from(failed > 0)
}

/// What an attempt said.
struct Tried {
    /// With the whole plan.
    guarded: String,
    /// Without its guards, where it has some.
    without: Option<String>,
}

impl Place {
    fn tried(&self, case: &Case, step: &mut Step) -> Result<Tried, String> {
        self.set_up(case, step);
        let kernel = step.kernel;
        step.spec.emulation =
            Some(Emulation { owners: Arc::new(()), records: Arc::default(), mounts: Default::default() });
        let guarded = said(|stdio| start_on(&step.spec, stdio, &kernel))?;
        if guarded.starts_with("escaped") {
            return Err(format!("with all guards: {guarded}"));
        }
        step.spec.emulation = None;
        let guards: Vec<Guard> = case.guards.to_vec();
        if guards.is_empty() {
            return Ok(Tried { guarded, without: None });
        }
        self.set_up(case, step);
        let mut calls = plan(&step.spec, None, &kernel).map_err(|error| chain(&error))?;
        // Devices, for instance, need no call of the plan.
        let _were_there = guards.iter().map(|guard| take_out(*guard, &mut calls)).collect::<Vec<_>>();
        let without = said(|stdio| start_plan(calls, stdio)).ok();
        Ok(Tried { guarded, without })
    }
}
