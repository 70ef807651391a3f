//! The account that the process becomes once its sockets are bound.
//! Always: what a node keeps under its prefix belongs to that account, so that it can reopen its logs and remove its
//! files.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use ringway::config::{Settings, User};

use super::prefix;

/// Becomes the `user` of the settings, if there is one, and gives it what is there of the node's files. To be called
/// once the sockets are bound; whatever is opened or created later is opened as that account.
pub fn become_user(settings: &Settings) -> Result<(), String> {
    let Some(user) = &settings.user else { return Ok(()) };
    let account = Account::find(user)?;
    for path in prefix::belongings(settings).iter().filter(|path| path.exists()) {
        account.take_over(path)?;
    }
    account.become_it()
}

/// Room for one entry of the user or group database.
const ENTRY_BYTES: usize = 16 << 10;

/// A user and a group that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    name: CString,
    uid: libc::uid_t,
    gid: libc::gid_t,
}

impl Account {
    /// Looks the names up.
    pub fn find(user: &User) -> Result<Self, String> {
        let unknown =
            |what: &str, name: &str| format!("user: there is no {what} \"{name}\"; create it, or leave user blank");
        let name = CString::new(user.name.as_str()).map_err(|_| unknown("user", &user.name))?;
        let (uid, own_gid) = passwd(&name).ok_or_else(|| unknown("user", &user.name))?;
        let gid = match &user.group {
            None => own_gid,
            Some(group) => {
                CString::new(group.as_str()).ok().and_then(|g| gid(&g)).ok_or_else(|| unknown("group", group))?
            }
        };
        Ok(Self { name, uid, gid })
    }

    /// Gives `path` to the account. Needs root, as does becoming it.
    fn take_over(&self, path: &Path) -> Result<(), String> {
        chown(path, Some(self.uid), Some(self.gid)).map_err(|error| {
            format!(
                "cannot give {} to the account of user: {error}; start as root, or leave user blank",
                path.display()
            )
        })
    }

    /// Turns the whole process into the account, for good: all of its threads, and all of its groups.
    fn become_it(&self) -> Result<(), String> {
        // SAFETY: plain numbers and a C string that lives through the call. The order matters: after setuid the
        // process may no longer change its groups.
        let done = unsafe {
            libc::initgroups(self.name.as_ptr(), self.gid) == 0
                && libc::setgid(self.gid) == 0
                && libc::setuid(self.uid) == 0
        };
        if done {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        Err(format!("cannot become user {:?}: {error}; start as root, or leave user blank", self.name))
    }
}

fn passwd(name: &CString) -> Option<(libc::uid_t, libc::gid_t)> {
    let mut buffer = vec![0; ENTRY_BYTES];
    let mut found = std::ptr::null_mut();
    // SAFETY: all-zero bytes are a valid passwd (null pointers, zero numbers).
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    // SAFETY: every pointer is to a live local, and the buffer's length is the one given.
    let error = unsafe { libc::getpwnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    (error == 0 && !found.is_null()).then_some((entry.pw_uid, entry.pw_gid))
}

fn gid(name: &CString) -> Option<libc::gid_t> {
    let mut buffer = vec![0; ENTRY_BYTES];
    let mut found = std::ptr::null_mut();
    // SAFETY: all-zero bytes are a valid group (null pointers, zero numbers).
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    // SAFETY: every pointer is to a live local, and the buffer's length is the one given.
    let error = unsafe { libc::getgrnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    (error == 0 && !found.is_null()).then_some(entry.gr_gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, group: Option<&str>) -> User {
        User { name: name.to_owned(), group: group.map(str::to_owned) }
    }

    #[test]
    fn root_is_found_with_its_own_group_or_another() {
        let root = Account::find(&user("root", None)).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        let daemons = Account::find(&user("root", Some("daemon"))).unwrap();
        assert_eq!((daemons.uid, daemons.gid != 0), (0, true));
    }

    #[test]
    fn who_does_not_exist_is_named() {
        for (name, group, want) in [
            ("no-such-user", None, "user \"no-such-user\""),
            ("root", Some("no-such"), "group \"no-such\""),
            ("a\0b", None, "user"),
        ] {
            let error = Account::find(&user(name, group)).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
