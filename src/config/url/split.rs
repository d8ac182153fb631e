//! Takes a URL or a `key=value` text apart, as libpq does (PostgreSQL manual, "Connection Strings").

use percent_encoding::percent_decode_str;

use crate::config::error::Problem;

const ENCODE: &str =
    "in a user, password or database write '@' as %40, ':' as %3A, '/' as %2F, '?' as %3F, '#' as %23, '%' as %25";

/// One parameter: its name as written, and its value decoded.
pub(super) type Parameter = (String, String);

/// The parameters in the order of the text (a later one overrides an earlier one), and how many of them stand before a URL's `?`.
///
/// # Errors
///
/// What is wrong with the text as a whole, without quoting it.
pub(super) fn split(text: &str) -> Result<(Vec<Parameter>, usize), Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Problem::new("is empty", "write postgres://user@host/database"));
    }
    if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        return split_url(rest);
    }
    if text.starts_with("jdbc:") {
        return Err(Problem::new("is a JDBC URL", "write postgres://user@host/database, without `jdbc:`"));
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))) {
        return Err(Problem::new("does not begin with postgres://", "write postgres://user@host/database"));
    }
    split_pairs(text).map(|parameters| (parameters, 0))
}

fn split_url(rest: &str) -> Result<(Vec<Parameter>, usize), Problem> {
    // libpq ends the userinfo at the first '@' before any '/', so that a '?' in a password is one.
    let userinfo = rest.split('/').next().and_then(|authority| authority.split_once('@')).map(|(userinfo, _)| userinfo);
    let rest = userinfo.map_or(rest, |userinfo| &rest[userinfo.len() + 1..]);
    let (front, query) = rest.split_once('?').map_or((rest, None), |(front, query)| (front, Some(query)));
    let (hosts, database) = front.split_once('/').map_or((front, None), |(hosts, d)| (hosts, Some(d)));
    let user_ends_late =
        userinfo.is_some_and(|userinfo| userinfo.split(':').next().is_some_and(|user| user.contains('?')));
    if user_ends_late || hosts.contains('@') || database.is_some_and(|database| database.contains(['@', '/'])) {
        return Err(Problem::new("has an '@', '/' or '?' too many", ENCODE));
    }
    let mut parameters = Vec::new();
    if let Some(userinfo) = userinfo {
        let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(u, p)| (u, Some(p)));
        push(&mut parameters, "user", user)?;
        push(&mut parameters, "password", password.unwrap_or_default())?;
    }
    split_hosts(hosts, &mut parameters)?;
    push(&mut parameters, "dbname", database.unwrap_or_default())?;
    let before_query = parameters.len();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Problem::new("has a parameter without '=' after the '?'", format!("write name=value; {ENCODE}"))
        })?;
        if value.contains('=') {
            return Err(Problem::new("has a parameter with two '='", "write '=' in a value as %3D"));
        }
        match (decode(name)?.as_str(), decode(value)?) {
            ("ssl", value) if value == "true" => parameters.push(("sslmode".to_owned(), "require".to_owned())),
            (name, value) => parameters.push((name.to_owned(), value)),
        }
    }
    Ok((parameters, before_query))
}

/// `host:port,[::1]:port,…`: libpq's lists, one value for the hosts and one for the ports.
fn split_hosts(text: &str, parameters: &mut Vec<Parameter>) -> Result<(), Problem> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for one in text.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(rest) => {
                let unclosed = || Problem::new("has a '[' without ']'", "write an IPv6 address like [::1]:5432");
                let (host, port) = rest.split_once(']').ok_or_else(unclosed)?;
                (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")).ok_or_else(unclosed)?)
            }
            None => one.split_once(':').unwrap_or((one, "")),
        };
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    push_list(parameters, "host", &hosts);
    push_list(parameters, "port", &ports);
    Ok(())
}

fn push_list(parameters: &mut Vec<Parameter>, name: &str, values: &[String]) {
    if values.iter().any(|value| !value.is_empty()) {
        parameters.push((name.to_owned(), values.join(",")));
    }
}

fn push(parameters: &mut Vec<Parameter>, name: &str, encoded: &str) -> Result<(), Problem> {
    if !encoded.is_empty() {
        parameters.push((name.to_owned(), decode(encoded)?));
    }
    Ok(())
}

fn decode(encoded: &str) -> Result<String, Problem> {
    let wrong = || Problem::new("has a '%' that no two hexadecimal digits of UTF-8 text follow", ENCODE);
    let digits_follow = encoded.split('%').skip(1).all(|rest| {
        rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)) && !rest.starts_with("00")
    });
    if !digits_follow {
        return Err(wrong());
    }
    percent_decode_str(encoded).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| wrong())
}

/// `key = value key='a value'`, with `\` before a quote or a backslash.
fn split_pairs(text: &str) -> Result<Vec<Parameter>, Problem> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let missing = || {
            let what =
                if parameters.is_empty() { "is neither a URL nor key=value pairs" } else { "has a key without '='" };
            Problem::new(
                what,
                "write postgres://user@host/database, or host=… user=… with values that hold spaces in '…'",
            )
        };
        let (name, value) = rest.split_once('=').ok_or_else(missing)?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(missing());
        }
        let (value, after) = split_value(value.trim_start())?;
        parameters.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(parameters)
}

fn split_value(text: &str) -> Result<(String, &str), Problem> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((index, char)) = chars.next() {
        match char {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[index + 1..])),
            char if !quoted && char.is_whitespace() => return Ok((value, &text[index..])),
            char => value.push(char),
        }
    }
    if quoted {
        return Err(Problem::new("has a quote that does not end", "end the value with '; write a quote in it as \\'"));
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        split(text).unwrap().0
    }

    fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_part_of_a_url_is_decoded() {
        assert_eq!(
            pairs("postgresql://a%40b:p%3Aq@[::1]:5433/d%20b?application_name=x%26y&options=-c%20a%3Db"),
            of(&[
                ("user", "a@b"),
                ("password", "p:q"),
                ("host", "::1"),
                ("port", "5433"),
                ("dbname", "d b"),
                ("application_name", "x&y"),
                ("options", "-c a=b")
            ])
        );
        assert_eq!(
            pairs("postgres://u:a?b=c:d@h?dbname=e@f"),
            of(&[("user", "u"), ("password", "a?b=c:d"), ("host", "h"), ("dbname", "e@f")])
        );
        assert_eq!(pairs("postgres://%2Fvar%2Frun/app"), of(&[("host", "/var/run"), ("dbname", "app")]));
        assert_eq!(pairs("postgres://a,b:5433/"), of(&[("host", "a,b"), ("port", ",5433")]));
        assert_eq!(
            pairs("postgres:///app?host=db1&ssl=true"),
            of(&[("dbname", "app"), ("host", "db1"), ("sslmode", "require")])
        );
    }

    #[test]
    fn pairs_are_quoted_and_escaped_as_in_libpq() {
        assert_eq!(
            pairs(r"host = db1 password='it\'s a \\ secret' user=a\ b dbname=''"),
            of(&[("host", "db1"), ("password", r"it's a \ secret"), ("user", "a b"), ("dbname", "")])
        );
    }

    #[test]
    fn a_password_that_is_not_encoded_is_never_quoted() {
        for text in [
            "postgres://u:s3cr/et@h/d",
            "postgres://u:s3cr@et@h/d",
            "postgres://u:s3cr%et@h/d",
            "postgres://u:12?s3cret@h/d",
            "host=h password=my s3cret",
            "host=h password='s3cret",
            "s3cret",
        ] {
            let problem = split(text).map(|found| found.0.len());
            if let Err(problem) = problem {
                assert!(!format!("{problem:?}").contains("s3cr"), "{text}");
            }
        }
    }
}
