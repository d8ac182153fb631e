//! Reads what a configuration points to: password files, libpq's password file, authorities. All reading of secrets is here.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::Path,
};

use secrecy::{ExposeSecret, SecretString};

use super::{
    endpoint::Endpoint,
    error::{Given, Mistake, Problem},
    raw::{RawAlias, RawService},
    url::{Draft, Surroundings, find_in_passfile},
};

/// What reading found out.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Mistake>,
}

impl Findings {
    /// Puts the password into the draft: from code, `password_file`, the URL, or a password file of libpq's, whichever there is.
    pub(super) fn fill(&mut self, alias: &RawAlias, draft: &mut Draft, surroundings: &Surroundings) {
        let written = [alias.password.is_some(), alias.password_file.is_some(), draft.password.is_some()];
        if written.iter().filter(|written| **written).count() > 1 {
            let at = alias.password_file.as_ref().map_or_else(|| alias.at_key("password"), |given| given.at.clone());
            let problem = Problem::new("the password is given twice", "take it out of the URL");
            return self.mistakes.push(at.mistake(problem));
        }
        let password = match &alias.password_file {
            Some(file) => self.password_file(file),
            None => alias.password.clone().or_else(|| draft.password.take()),
        };
        let password = match (password, &alias.password_file) {
            (None, None) => self.passfile(alias, draft, surroundings),
            (password, _) => password,
        };
        if let Some(password) = password {
            draft.target.postgres.password(password.expose_secret());
        }
        self.roots(alias, draft);
    }

    /// Puts the password of a service into its endpoint, and looks whether its authorities are there.
    pub(super) fn fill_service(&mut self, service: &RawService, endpoint: &mut Endpoint) {
        if let Some(file) = &service.password_file {
            if endpoint.password.is_some() {
                let problem = Problem::new("the password is given twice", "take it out of the URL");
                return self.mistakes.push(file.at.mistake(problem));
            }
            endpoint.password = self.password_file(file);
        }
        if let Some(file) = &service.root_cert
            && let Err(error) = File::open(&file.value)
        {
            let what = format!("{} cannot be read: {error}", file.value.display());
            self.mistakes.push(file.at.mistake(Problem::new(what, "name a PEM file that this process may read")));
        }
    }

    fn password_file(&mut self, given: &Given<std::path::PathBuf>) -> Option<SecretString> {
        let shown = given.value.display();
        match read(&given.value) {
            Err(error) => {
                let problem =
                    Problem::new(format!("{shown} cannot be read: {error}"), "name a file that this process may read");
                self.mistakes.push(given.at.mistake(problem));
                None
            }
            Ok((text, metadata)) => {
                if open_to(&metadata, 0o004) {
                    let problem =
                        Problem::new(format!("{shown} can be read by every user"), format!("run `chmod 600 {shown}`"));
                    self.warnings.push(given.at.mistake(problem));
                }
                let password = text.expose_secret().trim_end_matches(['\n', '\r']);
                if password.is_empty() {
                    self.mistakes.push(given.at.mistake(Problem::bare(format!("{shown} is empty"))));
                }
                Some(SecretString::from(password))
            }
        }
    }

    /// A file named in the URL has to be there; `PGPASSFILE` and `~/.pgpass` need not.
    fn passfile(&mut self, alias: &RawAlias, draft: &Draft, surroundings: &Surroundings) -> Option<SecretString> {
        let at = alias.url.as_ref().map_or_else(|| alias.at.clone(), |url| url.at.clone());
        let default = || surroundings.passfile.clone().or_else(|| Some(surroundings.home.as_ref()?.join(".pgpass")));
        let path = draft.passfile.clone().or_else(default)?;
        let shown = path.display();
        let (text, metadata) = match plain_file(&path).and_then(|()| read(&path)) {
            Ok(found) => found,
            Err(error) if draft.passfile.is_some() => {
                let problem = Problem::new(
                    format!("the passfile {shown} cannot be read: {error}"),
                    "name a file that this process may read",
                );
                self.mistakes.push(at.mistake(problem));
                return None;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                let problem =
                    Problem::bare(format!("the password file {shown} cannot be read and is ignored: {error}"));
                self.warnings.push(at.mistake(problem));
                return None;
            }
        };
        if open_to(&metadata, 0o077) {
            let what = format!("the password file {shown} can be read by others and is ignored, as libpq does");
            self.warnings.push(at.mistake(Problem::new(what, format!("run `chmod 600 {shown}`"))));
            return None;
        }
        find_in_passfile(text.expose_secret(), &draft.login)
    }

    fn roots(&mut self, alias: &RawAlias, draft: &Draft) {
        let (Some(file), Some(url)) = (draft.roots(), &alias.url) else { return };
        if let Err(error) = File::open(file) {
            let what = format!("the sslrootcert {} cannot be read: {error}", file.display());
            self.mistakes.push(url.at.mistake(Problem::new(what, "name a PEM file that this process may read")));
        }
    }
}

/// A file's text and rights, both of the same open file.
fn read(path: &Path) -> io::Result<(SecretString, Metadata)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((SecretString::from(text), metadata))
}

/// libpq reads no password file that is a pipe or a device; opening a pipe could wait for ever.
fn plain_file(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_file() { Ok(()) } else { Err(io::Error::other("not a plain file")) }
}

#[cfg(unix)]
fn open_to(metadata: &Metadata, mode: u32) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & mode != 0
}

#[cfg(not(unix))]
fn open_to(_: &Metadata, _: u32) -> bool {
    false
}
