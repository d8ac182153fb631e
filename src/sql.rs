//! How is text written into SQL? For statements that go as simple queries, which work over every back end and behind every pooler.

/// A text as SQL, whatever is in it and however the session reads backslashes: between two tags that do not occur in it
/// (PostgreSQL manual, "Dollar-Quoted String Constants").
pub(crate) fn literal(text: &str) -> String {
    let mut number = 0_u32;
    loop {
        let tag = format!("$q{number}$");
        let quoted = format!("{text}{tag}");
        // The end of the text and the tag could make a tag as well.
        if quoted.find(&tag) == Some(text.len()) {
            return format!("{tag}{quoted}");
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_quoted_with_a_tag_that_does_not_occur_in_it() {
        assert_eq!(literal("it's"), "$q0$it's$q0$");
        assert_eq!(literal("$q0$; DROP TABLE x"), "$q1$$q0$; DROP TABLE x$q1$");
        assert_eq!(literal("ends in $q0"), "$q1$ends in $q0$q1$");
    }

    proptest! {
        #[test]
        fn a_quoted_text_ends_where_the_text_does(text in "[$q01a']{0,12}") {
            let quoted = literal(&text);
            let end = quoted[1..].find('$').unwrap() + 2;
            let (tag, rest) = quoted.split_at(end);
            prop_assert_eq!(rest.find(tag), Some(text.len()));
            prop_assert_eq!(&rest[..text.len()], text.as_str());
            prop_assert_eq!(&rest[text.len()..], tag);
        }
    }
}
