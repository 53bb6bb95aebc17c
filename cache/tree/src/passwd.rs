//! Users and groups of an image, by its own `/etc/passwd` and `/etc/group`.
//!
//! Two questions with two answers, and the difference is BuildKit's: `USER` and the user of a `RUN` fail on a
//! name that is not there, `--chown` takes 0.

/// The accounts of an image: what its passwd and group files say. Lines that cannot be read count as far as
/// they can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<Account>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    name: Vec<u8>,
    uid: i64,
    gid: i64,
    home: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: Vec<u8>,
    gid: i64,
    members: Vec<Vec<u8>>,
}

/// As whom a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id inside the image.
    pub uid: u32,
    /// Primary group id inside the image.
    pub gid: u32,
    /// Supplementary groups, in the order of the group file; none where the user was written with a group.
    pub groups: Vec<u32>,
    /// Home folder, `/` where no account says otherwise.
    pub home: Vec<u8>,
}

/// A user or group that a process cannot run as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    /// No such name in passwd.
    #[error("the image's /etc/passwd has no user `{0}`")]
    NoUser(String),
    /// No such name in group.
    #[error("the image's /etc/group has no group `{0}`")]
    NoGroup(String),
    /// A number above 2147483647.
    #[error("the id `{0}` is out of range: 0 to 2147483647")]
    Range(String),
}

/// The largest id that a Dockerfile may name by number.
const MAX_ID: i64 = (1 << 31) - 1;

impl Accounts {
    /// Reads the bytes of passwd and group, either of which may be empty.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Accounts {
        let users = lines(passwd).map(|fields| Account {
            name: field(&fields, 0).to_vec(),
            uid: number(field(&fields, 2)).unwrap_or(0),
            gid: number(field(&fields, 3)).unwrap_or(0),
            home: field(&fields, 5).to_vec(),
        });
        let groups = lines(group).map(|fields| Group {
            name: field(&fields, 0).to_vec(),
            gid: number(field(&fields, 2)).unwrap_or(0),
            members: field(&fields, 3).split(|b| *b == b',').map(<[u8]>::to_vec).collect(),
        });
        Accounts { users: users.collect(), groups: groups.collect() }
    }

    /// Who a process is that runs as `user`: empty, `name`, `uid`, or either with `:group` or `:gid`.
    ///
    /// A name is looked up before a number is taken as one. A number needs no account; its group is then 0.
    ///
    /// # Errors
    /// [`BadUser`] for names that are not there and numbers above 2147483647.
    pub fn identity(&self, user: &str) -> Result<Identity, BadUser> {
        let (user, group) = user.split_once(':').unwrap_or((user, ""));
        let user = if user.is_empty() { "0" } else { user };
        let mut identity = Identity { uid: 0, gid: 0, groups: Vec::new(), home: b"/".to_vec() };
        // With both ids as numbers BuildKit asks no file, but the home folder is still looked up by the
        // runtime.
        let named = self.users.iter().find(|account| account.name == user.as_bytes());
        let wanted = number(user.as_bytes());
        let account = named.or_else(|| self.users.iter().find(|account| wanted == Some(account.uid)));
        match (account, wanted) {
            (Some(account), _) => {
                identity.uid = in_range(account.uid)?;
                identity.gid = in_range(account.gid)?;
                if !account.home.is_empty() {
                    identity.home.clone_from(&account.home);
                }
            }
            (None, Some(uid)) => identity.uid = in_range(uid)?,
            (None, None) => return Err(BadUser::NoUser(user.to_owned())),
        }
        if group.is_empty() {
            let name = account.map(|account| &account.name);
            let of = |group: &&Group| name.is_some_and(|name| group.members.contains(name));
            let groups = self.groups.iter().filter(of).map(|group| in_range(group.gid));
            identity.groups = groups.collect::<Result<_, _>>()?;
        } else {
            let wanted = number(group.as_bytes());
            let named = self.group(group.as_bytes()).or(wanted);
            let gid = named.ok_or_else(|| BadUser::NoGroup(group.to_owned()))?;
            identity.gid = in_range(gid)?;
        }
        Ok(identity)
    }

    /// Who owns what `--chown=owner` copies: `user`, `user:group`, `uid`, `uid:gid` or `:group`.
    ///
    /// A number without a group is both ids. A name that is not there is 0, for a group what the user gave; a
    /// number above 2147483647 is read as a name. All three are BuildKit's.
    pub fn chown(&self, owner: &str) -> (u32, u32) {
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let (mut uid, mut gid) = (0, 0);
        if let Some(id) = id(user) {
            (uid, gid) = (id, id);
        } else if let Some(account) = self.users.iter().find(|account| account.name == user.as_bytes()) {
            (uid, gid) = (account.uid as u32, account.gid as u32);
        }
        if let Some(id) = id(group) {
            gid = id;
        } else if let Some(found) = self.group(group.as_bytes()) {
            gid = found as u32;
        }
        (uid, gid)
    }

    /// Whether [`Accounts::chown`] of `owner` depends on the files at all.
    pub fn chown_needs_files(owner: &str) -> bool {
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        [user, group].into_iter().any(|part| !part.is_empty() && id(part).is_none())
    }

    fn group(&self, name: &[u8]) -> Option<i64> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid)
    }
}

fn in_range(id: i64) -> Result<u32, BadUser> {
    if (0..=MAX_ID).contains(&id) { Ok(id as u32) } else { Err(BadUser::Range(id.to_string())) }
}

/// An id as `--chown` takes it by number.
fn id(text: &str) -> Option<u32> {
    number(text.as_bytes()).filter(|id| (0..=MAX_ID).contains(id)).map(|id| id as u32)
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let lines = file.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).map(|line| line.split(|b| *b == b':').collect())
}

fn field<'a>(fields: &[&'a [u8]], at: usize) -> &'a [u8] {
    fields.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nmail:*:8:8:mail:/var/mail:/x\n\nalice:x:501:20::/home/a:\nbob:x:777:888\n42:x:7:7::/42:\n";
        let group = b"root:x:0:\nmail:x:8:alice\ndevs:x:4242:alice,bob\n";
        Accounts::parse(passwd, group)
    }

    #[test]
    fn a_process_runs_as_who_the_files_say() {
        let is = |user: &str| {
            let id = accounts().identity(user).expect(user);
            let home = String::from_utf8(id.home).expect("text");
            format!("{}:{} {:?} {home}", id.uid, id.gid, id.groups)
        };
        for (user, expected) in [
            ("", "0:0 [] /root"),
            ("root", "0:0 [] /root"),
            ("mail", "8:8 [] /var/mail"),
            ("8", "8:8 [] /var/mail"),
            ("4321", "4321:0 [] /"),
            ("4321:5", "4321:5 [] /"),
            ("alice", "501:20 [8, 4242] /home/a"),
            ("alice:devs", "501:4242 [] /home/a"),
            ("bob", "777:888 [4242] /"),
            ("42", "7:7 [] /42"),
        ] {
            assert_eq!(is(user), expected, "{user}");
        }
        let accounts = accounts();
        assert_eq!(accounts.identity("eve"), Err(BadUser::NoUser("eve".into())));
        assert_eq!(accounts.identity("0:eves"), Err(BadUser::NoGroup("eves".into())));
        assert_eq!(accounts.identity("2147483648"), Err(BadUser::Range("2147483648".into())));
        assert!(accounts.identity("-1").is_err());
    }

    #[test]
    fn chown_takes_zero_for_names_that_are_not_there() {
        for (owner, expected) in [
            ("alice:devs", (501, 4242)),
            ("bob", (777, 888)),
            ("nosuch", (0, 0)),
            ("0:nosuch", (0, 0)),
            ("bob:nosuch", (777, 888)),
            ("11", (11, 11)),
            ("11:12", (11, 12)),
            (":devs", (0, 4242)),
            ("2147483647", (2147483647, 2147483647)),
            ("2147483648", (0, 0)),
            ("5:4294967294", (5, 5)),
        ] {
            assert_eq!(accounts().chown(owner), expected, "{owner}");
        }
        assert_eq!(Accounts::default().chown("root"), (0, 0));
        assert!(Accounts::chown_needs_files("root") && Accounts::chown_needs_files("1:mail"));
        assert!(!Accounts::chown_needs_files("1:2") && !Accounts::chown_needs_files("7"));
    }
}
