//! A secret in the wrong place is never quoted.

use proptest::prelude::*;

use super::*;

const CANARY: &str = "k4n4ri-8c1f";

fn assert_unseen(text: &str) {
    let said = report(text);
    assert!(!said.contains(CANARY), "{text}\n{said}");
    assert!(!said.is_empty(), "{text}");
}

#[test]
fn as_the_value_of_every_key() {
    for (path, _) in every_key("acme") {
        assert_unseen(&format!("{path} = \"{CANARY}\""));
        assert_unseen(&format!("{path} = [[\"{CANARY}\"]]"));
        assert_unseen(&format!("{path} = {CANARY}"));
    }
}

#[test]
fn in_every_other_wrong_place() {
    for text in [
        format!("client.catalog = {{ client_secret_fle = \"{CANARY}\" }}"),
        format!("client.catalog = {{ client_secret = {{ value = \"{CANARY}\" }} }}"),
        format!("[client.catalog]\nclient_secret {CANARY}"),
        format!("[client.catalog]\nclient_secret = \"{CANARY}"),
        format!("[client.catalog]\nclient_secret = '{CANARY}\" # '"),
        format!("[client.catalog]\nclient_secret = \"{CANARY}\" pool = 3"),
        format!("[client.catalog]\nclient_secret = \"{CANARY}\"\nclient_secret = 3"),
        format!("instance.acme = {{ url = \"https://me:{CANARY}@acme.example\" }}"),
        format!("instance.acme = {{ url = \"https://acme.example/?{CANARY}\" }}"),
        format!("instance.acme = {{ url = \"http://acme.example\", token_path = \"{CANARY}\" }}"),
    ] {
        assert_unseen(&text);
    }
    let env = |_: &str| Some(format!("{CANARY}\n{CANARY}"));
    let text = with("", "", "").replace("client_secret =", "client_secret_env =");
    let said = read_with(&text, Path::new("/"), &env)
        .unwrap_err()
        .to_string();
    assert!(!said.contains(CANARY), "{said}");
}

#[test]
fn in_a_file_that_is_not_what_it_should_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let text = with("", "", "")
        .replace(
            "client_id = \"id\"\nclient_secret = \"s\"",
            "credentials_file = \"file\"",
        )
        .replace("[client", "ca_file = \"file\"\n[client");
    for content in [
        CANARY.to_owned(),
        format!("\"{CANARY}\""),
        format!("{{\"client_id\": \"{CANARY}\"}}"),
        format!("{{\"client_id\": \"{CANARY}\", \"client_secret\": [\"{CANARY}\"]}}"),
        format!("{{\"client_id\": \"{CANARY}\u{e9}\", \"client_secret\": \"{CANARY}\\n1\"}}"),
        format!("client_secret: {CANARY}"),
    ] {
        std::fs::write(&path, &content).unwrap();
        let faults = read_with(&text, directory.path(), &|_| None).unwrap_err();
        let said = faults.to_string();
        assert!(said.contains("credentials_file"), "{said}");
        assert!(
            !said.contains(CANARY) && !format!("{faults:?}").contains(CANARY),
            "{said}"
        );
    }
}

#[test]
fn a_sound_configuration_does_not_print_it_either() {
    let text = with("", "", "").replace("\"s\"", &format!("\"{CANARY}\""));
    assert!(!format!("{:?}", read(&text).unwrap()).contains(CANARY));
}

proptest! {
    #[test]
    fn any_text_is_judged(text in "\\PC*") {
        let _ = read(&text);
    }

    #[test]
    fn any_lines_are_judged(lines in prop::collection::vec(line(), 0..12)) {
        let _ = read(&lines.join("\n"));
    }

    #[test]
    fn any_slip_hides_the_secret(at in 0..400_usize, cut in 0..3_usize, put in "[\\PC\n\"'=\\[\\]{}]{0,2}") {
        let mut text = with("", "", "").replace("\"s\"", &format!("\"{CANARY}\""));
        // the canary itself stays whole, or else it could not be recognised
        let canary = text.find(CANARY).unwrap();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        prop_assume!(end <= canary || at >= canary + CANARY.len());
        text.replace_range(at..end, &put);
        let said = report(&text);
        prop_assert!(!said.contains(CANARY), "{}\n{}", text, said);
    }
}

/// A line that has something of a configuration.
fn line() -> impl Strategy<Value = String> {
    let words: Vec<_> = every_key("").iter().map(|(_, key)| key.name).collect();
    let words = prop::sample::select(words);
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        "\\PC{0,8}".prop_map(|text| format!("{text:?}")),
        Just("{ capacity = 0, refill = \"0s\" }".to_owned()),
        Just("\"https://a.example\"".to_owned()),
        Just("\"99999999999y\"".to_owned()),
    ];
    prop_oneof![
        words.clone().prop_map(|word| format!("[{word}.a]")),
        words.clone().prop_map(|word| format!("[{word}]")),
        (words, value).prop_map(|(word, value)| format!("{word} = {value}")),
    ]
}
