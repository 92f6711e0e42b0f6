//! What an app may do.

use super::*;

#[test]
fn an_app_does_what_it_may_and_nothing_else() {
    let (_simulator, proxy) = known_apps("");
    let shown = basic("reader", READER_KEY);
    for line in [
        "GET /rest/2.0/assets",
        "HEAD /rest/2.0/assets",
        "GET /rest/2.0/assets?name=/../x",
        "POST /graphql",
        "POST /graphql/knowledgeGraph/v1",
    ] {
        let answer = call(&proxy, line, &shown);
        assert_ne!(
            answer.header("x-collibra-auth-proxy"),
            Some("denied"),
            "{line}"
        );
    }
    for line in [
        "POST /rest/2.0/assets",
        "DELETE /rest/2.0/assets/1",
        "GET /graphql",
        "GET /rest/catalog/1.0/x",
        "GET /rest/2.0/../catalog/1.0/x",
        "GET /rest/2.0/%252e%252e/catalog/1.0/x",
        "GET /REST/2.0/assets",
        "GET /",
    ] {
        call(&proxy, line, &shown).assert_refused(403, "denied");
        let everything = call(&proxy, line, &basic("lineage", KEY));
        assert_ne!(
            everything.header("x-collibra-auth-proxy"),
            Some("denied"),
            "{line}"
        );
    }
}

#[test]
fn another_method_in_a_header_or_the_query_is_judged_as_well() {
    let (simulator, proxy) = known_apps("");
    let shown = basic("reader", READER_KEY);
    let before = simulator.count("requests");
    for header in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        let headers = format!("{shown}{header}: DELETE\n");
        call(&proxy, "POST /graphql", &headers).assert_refused(403, "denied");
        let headers = format!("{shown}{header}: TRACE\n");
        call(&proxy, "POST /graphql", &headers).assert_refused(405, "method");
    }
    call(&proxy, "POST /graphql?_method=DELETE", &shown).assert_refused(403, "denied");
    assert_eq!(simulator.count("requests"), before);
    // an app that may do all of it may use this form
    let headers = format!("{}X-HTTP-Method-Override: PATCH\n", basic("lineage", KEY));
    assert_eq!(call(&proxy, "POST /echo", &headers).status, 200);
}

#[test]
fn what_is_denied_is_denied_to_every_app() {
    let (simulator, proxy) = known_apps("[policy]\ndeny = [\"DELETE /rest/2.0/**\", \"/echo\"]\n");
    let before = simulator.count("requests");
    let shown = basic("lineage", KEY);
    for line in [
        "DELETE /rest/2.0/assets/1",
        "DELETE /Rest/2.0/x",
        "GET /echo",
        "GET /ECHO/",
    ] {
        call(&proxy, line, &shown).assert_refused(403, "denied");
    }
    let headers = format!("{shown}X-HTTP-Method-Override: DELETE\n");
    call(&proxy, "POST /rest/2.0/assets/1", &headers).assert_refused(403, "denied");
    assert_eq!(simulator.count("requests"), before);
    // the deny list is the operator's: it does not have client management here
    let answer = call(&proxy, "GET /rest/auth/v1/clients", &shown);
    assert_ne!(answer.header("x-collibra-auth-proxy"), Some("denied"));
}
