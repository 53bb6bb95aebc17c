//! A socket for a step that leads to the client's ssh agent, or to keys that the client has.

use std::{
    fs, io,
    os::fd::AsRawFd,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use ::ssh::{FAILURE, is_harmless, read_message, write_message};

use crate::client::SshAgent;

/// How many connections a step has at once: each is a thread of this process, and up to six of its descriptors, which other
/// steps need too.
const MOST_CONNECTIONS: usize = 64;

/// Whose a socket is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A socket that leads to an agent until this is dropped.
pub(crate) struct Forwarded(PathBuf);

impl Forwarded {
    /// Listens at `at`, in a folder of its own.
    ///
    /// The socket has the mode and owner that the step was promised; the agent's own are not touched.
    pub(crate) fn open(agent: SshAgent, at: PathBuf, owned: Owned) -> io::Result<Forwarded> {
        let listener = at_short_path(&at, |at| UnixListener::bind(at))?;
        let forwarded = Forwarded(at.clone());
        fs::set_permissions(&at, fs::Permissions::from_mode(owned.mode))?;
        chown(&at, Some(owned.uid), Some(owned.gid))?;
        let open = Arc::new(());
        named_thread(move || {
            for step in listener.incoming() {
                // The one who drops us wakes us by a last connection, after the file is gone.
                if !at.exists() {
                    return;
                }
                let (Ok(step), agent, counted) = (step, agent.clone(), open.clone()) else { continue };
                if Arc::strong_count(&open) > MOST_CONNECTIONS + 1 {
                    // The step sees this one end, and keeps those that it has.
                    continue;
                }
                // Where there can be no further thread, it sees the same.
                let _serving = named_thread(move || {
                    serve(step, &agent);
                    drop(counted);
                });
            }
        })?;
        Ok(forwarded)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Forwarded {
    /// Nothing can connect any more.
    fn drop(&mut self) {
        let waker = at_short_path(&self.0, |at| UnixStream::connect(at));
        // Whoever waits in `accept` got a connection before the file went; it looks for the file after that.
        let _gone = fs::remove_file(&self.0);
        drop(waker);
    }
}

fn named_thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("ssh".to_owned()).spawn(work).map(drop)
}

/// Calls with a path that fits into a socket's address, which takes 107 bytes: through the open folder, where `/proc` is mounted.
fn at_short_path<T>(at: &Path, call: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(folder), Some(name)) = (at.parent(), at.file_name()) else { return call(at) };
    if at.as_os_str().len() < 100 {
        return call(at);
    }
    let folder = fs::File::open(folder)?;
    call(&Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

/// Answers one connection of a step until it ends.
fn serve(step: UnixStream, agent: &SshAgent) {
    // Why it ends early is nothing that the step could be told.
    let _ended = match agent {
        SshAgent::Keys(keys) => answer(step, |request| Ok(keys.answer(request))),
        SshAgent::Socket { path, raw: false } => at_short_path(path, |at| UnixStream::connect(at))
            .and_then(|mut agent| answer(step, |request| ask(&mut agent, request))),
        SshAgent::Socket { path, raw: true } => {
            at_short_path(path, |at| UnixStream::connect(at)).and_then(|agent| join(step, agent))
        }
    };
}

/// Answers requests until there are no more.
fn answer(mut step: UnixStream, mut reply: impl FnMut(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<()> {
    while let Some(request) = read_message(&mut step)? {
        let answer = reply(&request)?;
        write_message(&mut step, &answer)?;
    }
    Ok(())
}

/// Has the user's agent answer a request that changes nothing in it.
fn ask(agent: &mut UnixStream, request: &[u8]) -> io::Result<Vec<u8>> {
    if !is_harmless(request) {
        return Ok(FAILURE.to_vec());
    }
    write_message(agent, request)?;
    read_message(agent)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Copies both ways until both sides have closed.
fn join(step: UnixStream, agent: UnixStream) -> io::Result<()> {
    // A side that breaks off is a side that has ended.
    let copy = |mut from: UnixStream, mut to: UnixStream| {
        let _copied = io::copy(&mut from, &mut to);
        let _closed = to.shutdown(std::net::Shutdown::Write);
    };
    let (from, to) = (step.try_clone()?, agent.try_clone()?);
    thread::scope(|scope| {
        thread::Builder::new().name("ssh".to_owned()).spawn_scoped(scope, move || copy(from, to))?;
        copy(agent, step);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::{io::Read, time::Duration};

    use super::*;

    #[test]
    fn a_step_has_so_many_connections_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("agent");
        let agent = SshAgent::Keys(Arc::default());
        let owned = Owned {
            mode: 0o600,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        let forwarded = Forwarded::open(agent, at.clone(), owned).expect("it listens");
        let connect = || {
            let step = UnixStream::connect(&at).expect("it listens");
            step.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            step
        };
        let asked = |step: &mut UnixStream| {
            // One that has ended already takes no question.
            write_message(step, &[11]).ok()?;
            read_message(step).ok().flatten()
        };
        let none = Some(vec![12, 0, 0, 0, 0]);
        let mut open: Vec<UnixStream> = (0..MOST_CONNECTIONS).map(|_| connect()).collect();
        assert!(open.iter_mut().all(|step| asked(step) == none));
        assert_eq!(connect().read(&mut [0]).expect("it ends"), 0);
        assert!(open.iter_mut().all(|step| asked(step) == none));
        // What ends makes room, as soon as its thread has seen it.
        drop(open);
        assert!((0..400).any(|_| {
            thread::sleep(Duration::from_millis(10));
            asked(&mut connect()) == none
        }));
        drop(forwarded);
        assert!(UnixStream::connect(&at).is_err());
    }
}
