//! JSON strings, written for what forms are made of: long values without a character to escape.

/// Appends `text` as a JSON string.
///
/// A session token stands in a form's policy and again among its fields, a kilobyte or two each time; looking for
/// characters to escape by blocks costs a fraction of looking at every byte.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator would branch at every byte instead of taking blocks")]
pub(super) fn push_string(out: &mut String, text: &str) {
    let needs_escape = text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'));
    if needs_escape {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> String {
        let mut out = String::new();
        push_string(&mut out, text);
        out
    }

    #[test]
    fn control_characters_quotes_and_backslashes_are_escaped() {
        for code in 0..=0xff_u8 {
            let text = char::from(code).to_string();
            assert_eq!(string(&text), serde_json::to_string(&text).unwrap(), "{code:#x}");
        }
    }

    proptest! {
        #[test]
        fn strings_are_those_of_serde_json(text in ".*") {
            prop_assert_eq!(string(&text), serde_json::to_string(&text).unwrap());
        }
    }
}
