//! Which line of a password file is meant? libpq's rules (PostgreSQL manual, "The Password File").

use secrecy::SecretString;

/// What a line of a password file is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Login {
    /// The host as written: a name, an address or a socket's directory.
    pub(in crate::config) host: String,
    pub(in crate::config) port: u16,
    pub(in crate::config) database: String,
    pub(in crate::config) user: String,
}

/// The password of the first line that matches: `host:port:database:user:password`, `*` for any, `\` before a `:` or `\` that is meant.
pub(in crate::config) fn find(text: &str, login: &Login) -> Option<SecretString> {
    let port = login.port.to_string();
    let wanted = [login.host.as_str(), &port, &login.database, &login.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line.trim_end_matches('\r'));
        let (Some(wanted_fields), Some(password)) = (fields.get(..4), fields.get(4)) else { return None };
        let matches = wanted_fields.iter().zip(wanted).all(|((raw, field), wanted)| raw == "*" || field == wanted);
        let default_socket = ["/var/run/postgresql", "/run/postgresql", "/tmp"].contains(&login.host.as_str());
        let matches_as_localhost = default_socket
            && fields.first().is_some_and(|(_, host)| host == "localhost")
            && fields[1..4].iter().zip(&wanted[1..]).all(|((raw, field), wanted)| raw == "*" || field == wanted);
        (matches || matches_as_localhost).then(|| SecretString::from(password.1.clone()))
    })
}

/// The fields of a line, each as written and without its escapes. What follows the fifth is part of no password.
fn fields(line: &str) -> Vec<(String, String)> {
    let mut fields = vec![(String::new(), String::new())];
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        let Some((raw, field)) = fields.last_mut() else { break };
        match char {
            ':' => fields.push((String::new(), String::new())),
            '\\' => {
                raw.push(char);
                let escaped = chars.next();
                raw.extend(escaped);
                field.extend(escaped);
            }
            char => {
                raw.push(char);
                field.push(char);
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn password(text: &str, host: &str) -> Option<String> {
        let login = Login { host: host.to_owned(), port: 5432, database: "app".to_owned(), user: "u:1".to_owned() };
        find(text, &login).map(|password| password.expose_secret().to_owned())
    }

    #[test]
    fn the_first_matching_line_wins() {
        let file = "# a comment\ndb1:5432:app:u\\:1:first\n*:*:*:*:any\n";
        assert_eq!(password(file, "db1").as_deref(), Some("first"));
        assert_eq!(password(file, "db2").as_deref(), Some("any"));
    }

    #[test]
    fn a_star_that_is_escaped_is_a_star() {
        assert_eq!(password("\\*:*:*:*:x\n", "db1"), None);
        assert_eq!(password("\\*:*:*:*:x\n", "*").as_deref(), Some("x"));
    }

    #[test]
    fn escapes_in_a_password_are_taken_away() {
        assert_eq!(password("*:*:*:*:a\\:b\\\\c", "db1").as_deref(), Some("a:b\\c"));
    }

    #[test]
    fn lines_that_are_too_short_match_nothing() {
        assert_eq!(password("db1:5432:app\n\n", "db1"), None);
    }

    #[test]
    fn the_default_socket_is_localhost() {
        assert_eq!(password("localhost:*:*:*:x", "/var/run/postgresql").as_deref(), Some("x"));
        assert_eq!(password("localhost:*:*:*:x", "/srv/socket"), None);
    }
}
