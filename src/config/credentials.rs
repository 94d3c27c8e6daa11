//! Users and passwords.
//!
//! Nothing here shows any part of what it reads, in no message: a mistake says which credential is meant by counting.

use crate::gateway::Credential;

/// `user:pass`.
pub(super) fn one(text: &str) -> Result<Credential, String> {
    parse(text).map_err(|wrong| format!("{wrong}; write user:pass"))
}

/// `user:pass[,user:pass...]`, the form in which the gateway takes its own.
pub(super) fn list(text: &str) -> Result<Vec<Credential>, String> {
    const FORM: &str = "write user:pass[,user:pass...]; a password cannot contain a comma";
    let mut list = Vec::<Credential>::new();
    for (place, part) in (1..).zip(text.split(',')) {
        let credential = parse(part).map_err(|wrong| format!("credential {place}: {wrong}; {FORM}"))?;
        if let Some(same) = list.iter().position(|other| other.user == credential.user) {
            return Err(format!("credentials {} and {place} name the same user; give each user once", same + 1));
        }
        list.push(credential);
    }
    Ok(list)
}

fn parse(text: &str) -> Result<Credential, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.contains(char::is_control) {
        return Err("it contains a line break or another control character");
    }
    let (user, password) = text.split_once(':').ok_or("it has no colon between user and password")?;
    if user.is_empty() {
        return Err("its user is empty");
    }
    if user.trim() != user {
        return Err("its user begins or ends with a space");
    }
    if password.is_empty() {
        return Err("its password is empty");
    }
    Ok(Credential { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_password_may_contain_colons() {
        let credential = one("ada:a:b:").unwrap();
        assert_eq!((credential.user.as_str(), credential.password.as_str()), ("ada", "a:b:"));
        let users: Vec<_> = list("ada:1,bob:2").unwrap().into_iter().map(|credential| credential.user).collect();
        assert_eq!(users, ["ada", "bob"]);
    }

    #[test]
    fn what_is_wrong_is_counted_not_shown() {
        for (text, said) in [
            ("", "credential 1: it is empty"),
            ("ada:1,", "credential 2: it is empty"),
            ("ada:1,hunter2", "credential 2: it has no colon"),
            (":hunter2", "credential 1: its user is empty"),
            ("ada:", "credential 1: its password is empty"),
            ("ada:1, bob:hunter2", "credential 2: its user begins or ends with a space"),
            ("ada:1\nbob:hunter2", "credential 1: it contains a line break"),
            ("ada:1,bob:2,ada:hunter2", "credentials 1 and 3 name the same user"),
        ] {
            let text = list(text).map(|_| text).unwrap_err();
            assert!(text.starts_with(said), "{text}");
            assert!(!text.contains("hunter2") && !text.contains("bob") && !text.contains("ada"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_can_be_sent(text in ".*") {
            for credential in list(&text).unwrap_or_default() {
                prop_assert!(!credential.user.is_empty() && !credential.user.contains(':'));
                prop_assert!(!credential.password.is_empty() && !credential.password.contains(','));
            }
        }
    }
}
