//! As whom a step runs, by the accounts of its own root file system.

use tree::{Accounts, Identity};

use super::Effects;
use crate::{error::Cause, result::Mounted};

impl Effects {
    /// The accounts of a root file system.
    pub(crate) fn accounts(&self, root: &Mounted) -> Result<Accounts, Cause> {
        let passwd = self.read_file(root, "/etc/passwd")?.unwrap_or_default();
        let group = self.read_file(root, "/etc/group")?.unwrap_or_default();
        Ok(Accounts::parse(&passwd, &group))
    }

    /// Who `user` is in a root file system.
    pub(crate) fn identity(&self, root: &Mounted, user: &str) -> Result<Identity, Cause> {
        Ok(self.accounts(root)?.identity(user)?)
    }
}
