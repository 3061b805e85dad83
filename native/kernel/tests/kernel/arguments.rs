//! From bytes to typed arguments.

use authz_kernel::arguments::{ArgumentSchema, ArgumentType, ArgumentValue};
use serde_json::json;

fn schema(value: serde_json::Value) -> ArgumentSchema {
    ArgumentSchema::compile(&value).unwrap_or_else(|error| panic!("{error}"))
}

fn wide() -> ArgumentSchema {
    schema(json!({
        "type": "object",
        "required": ["n", "must"],
        "properties": {
            "n": {"type": "integer", "minimum": 0}, "must": {"type": ["string", "null"]},
            "price": {"type": "number"}, "flag": {"type": "boolean"},
            "level": {"enum": ["low", "high"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "address": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "either": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            "tree": {"$ref": "#/$defs/tree"},
            "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "any": {}
        },
        "$defs": {"tree": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}}
    }))
}

#[test]
fn each_schema_has_the_type_that_policies_see() {
    let schema = wide();
    let kind = |name: &str| schema.members()[name].kind.clone();
    assert_eq!(ArgumentType::Long, kind("n"));
    assert_eq!(ArgumentType::Decimal, kind("price"));
    assert_eq!(ArgumentType::Bool, kind("flag"));
    assert_eq!(ArgumentType::Text, kind("level"));
    assert_eq!(ArgumentType::Set(Box::new(ArgumentType::Text)), kind("tags"));
    assert!(matches!(kind("address"), ArgumentType::Record(_)));
    for name in ["map", "either", "any"] {
        assert_eq!(ArgumentType::Opaque, kind(name), "{name}");
    }
    assert!(matches!(kind("tree"), ArgumentType::Record(_)), "opaque only where it recurs");
    assert_eq!((ArgumentType::Long, false), (kind("maybe"), schema.members()["maybe"].required));
    // A member that must be there but may be null is absent where it is null.
    assert_eq!(
        (false, true),
        (schema.members()["must"].required, schema.members()["must"].nullable)
    );
}

#[test]
fn typed_values_are_read() {
    let read = wide().read(br#"{"n": 7, "must": null, "price": 1.5, "flag": true, "level": "low", "tags": ["b", "a"],
        "address": {"city": "Oslo", "zip": null}, "map": {"x": 1}, "maybe": null, "any": [1, {"y": null}]}"#).unwrap();
    let value = |name: &str| read.values().iter().find(|(known, _)| known == name).map(|(_, v)| v);
    assert_eq!(Some(&ArgumentValue::Long(7)), value("n"));
    assert_eq!(Some(&ArgumentValue::Decimal(15_000)), value("price"));
    assert_eq!(None, value("must"));
    assert_eq!(None, value("maybe"));
    assert_eq!(Some(&ArgumentValue::Opaque), value("map"));
    assert_eq!(Some(&ArgumentValue::Opaque), value("any"));
    let Some(ArgumentValue::Record(address)) = value("address") else { panic!("no record") };
    assert_eq!(1, address.len());
}

#[test]
fn what_has_not_the_declared_form_is_refused_by_pointer_and_without_its_value() {
    for (arguments, message) in [
        ("", "argument `/n`: required, but absent"),
        ("[]", "arguments: expected an object"),
        ("{", "arguments: expected a string"),
        (r#"{"n": "secret"}"#, "argument `/n`: expected an integer within ±2^53"),
        (r#"{"n": 1.0}"#, "argument `/n`: expected an integer within ±2^53"),
        (r#"{"n": 9007199254740993}"#, "argument `/n`: expected an integer within ±2^53"),
        (r#"{"n": -1, "must": "x"}"#, "argument `/n`: breaks `minimum` of the schema"),
        (r#"{"n": null, "must": "x"}"#, "argument `/n`: expected an integer within ±2^53"),
        (r#"{"n": 1, "must": "x", "other": 1}"#, "arguments: an undeclared member"),
        (
            r#"{"n": 1, "must": "x", "level": "secret"}"#,
            "argument `/level`: breaks `enum` of the schema",
        ),
        (r#"{"n": 1, "must": "x", "tags": [1]}"#, "argument `/tags/0`: expected a string"),
        (
            r#"{"n": 1, "must": "x", "address": {}}"#,
            "argument `/address/city`: required, but absent",
        ),
        (
            r#"{"n": 1, "must": "x", "address": {"city": "x", "zip": "secret"}}"#,
            "argument `/address/zip`: breaks `pattern` of the schema",
        ),
        (
            r#"{"n": 1, "must": "x", "map": {"a": "secret"}}"#,
            "argument `/map`: an undeclared member: breaks `type` of the schema",
        ),
        (r#"{"n": 1, "must": "x", "n": 2}"#, "argument `/n`: member named twice"),
        (r#"{"n": 1}"#, "arguments: breaks `required` of the schema"),
    ] {
        let error = wide().read(arguments.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(message, error, "{arguments}");
    }
}

#[test]
fn a_number_that_a_decimal_cannot_hold_is_present_and_no_more() {
    let schema = schema(json!({"type": "object", "properties": {"x": {"type": "number"}}}));
    let read = |text: &str| {
        let read = schema.read(format!("{{\"x\": {text}}}").as_bytes()).unwrap();
        read.values()[0].1.clone()
    };
    for (text, value) in [
        ("1", 10_000),
        ("-0", 0),
        ("0.0001", 1),
        ("1.50000", 15_000),
        ("1e3", 10_000_000),
        ("-2.5E-1", -2_500),
        ("922337203685477.5807", i64::MAX),
    ] {
        assert_eq!(ArgumentValue::Decimal(value), read(text), "{text}");
    }
    for text in [
        "0.00001",
        "59.12345",
        "1e300",
        "922337203685477.5808",
        "1e-9999",
        "3.141592653589793238462643383279",
        "9007199254740994.0",
        "6.02214076e23",
    ] {
        assert_eq!(ArgumentValue::Opaque, read(text), "{text}");
    }
}

/// Beyond ±2⁵³ a reader with doubles takes a neighbour of the number, and one with 64-bit integers may wrap around.
#[test]
fn a_number_that_readers_round_is_refused() {
    let items = json!({"type": "array", "items": {"type": "number"}});
    let inner = json!({"type": "object", "properties": {"x": {"type": "number"}}});
    let schema = schema(json!({"type": "object", "properties": {
        "x": {"type": "number"}, "all": items, "inner": inner,
    }}));
    for (text, is_read) in [
        ("9007199254740991", true),
        ("9007199254740992", true),
        ("-9007199254740992", true),
        ("9007199254740993", false),
        ("-9007199254740993", false),
        ("9007199254740994", false),
        ("18446744073709551616", false),
        ("123456789012345678901234567890", false),
        ("9007199254740992.0", true),
        ("9007199254740993.0", false),
        ("9007199254740992.5", false),
        ("9.007199254740993e15", false),
        ("9007199254740993e0", false),
        ("-9.007199254740993E+15", false),
        ("1e16", true),
        ("1e20", true),
        ("99999999999999999e0", false),
        ("1.7976931348623157e308", true),
        ("1e309", false),
        ("-1e309", false),
        ("0.1", true),
        ("0.1000000000000000055511151231257827", true),
    ] {
        for arguments in [
            format!("{{\"x\": {text}}}"),
            format!("{{\"all\": [1, {text}]}}"),
            format!("{{\"inner\": {{\"x\": {text}}}}}"),
        ] {
            assert_eq!(is_read, schema.read(arguments.as_bytes()).is_ok(), "{arguments}");
        }
    }
}

#[test]
fn a_schema_that_would_reach_out_or_run_long_is_refused() {
    let object =
        |property: serde_json::Value| json!({"type": "object", "properties": {"x": property}});
    for (schema, part) in [
        (object(json!({"$ref": "https://example.org/schema"})), "points outside"),
        (
            object(json!({"oneOf": [{"$ref": "file:///etc/passwd"}, {"type": "string"}]})),
            "points outside",
        ),
        (object(json!({"$ref": "#/nowhere"})), "points to nothing"),
        (object(json!({"type": "string", "pattern": "(a+)+\\1"})), ""),
        (object(json!({"type": "string", "pattern": "(?=a)b"})), ""),
        (object(json!({"$id": "https://example.org/", "type": "string"})), "`$id`"),
        (object(json!({"type": "file"})), "unknown type"),
        (json!({"type": "string"}), "must describe an object"),
        (json!({"oneOf": [{"type": "object"}]}), "must describe an object"),
        (json!({"type": "object", "required": ["y"], "properties": {}}), "does not declare"),
        (json!(true), "must describe an object"),
    ] {
        let error = ArgumentSchema::compile(&schema).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(part), "{schema}: {error}");
    }
    let mut deep = json!({"type": "string"});
    for _ in 0..40 {
        deep = json!({"type": "object", "properties": {"x": deep}});
    }
    assert!(ArgumentSchema::compile(&deep).is_err());
}

fn digest(text: &str) -> [u8; 32] {
    let open = schema(json!({"type": "object", "properties": {"a": {}, "b": {}, "\u{e9}": {}}}));
    open.read(text.as_bytes()).unwrap().digest()
}

#[test]
fn the_digest_is_of_what_is_said_not_of_how_it_is_written() {
    use sha2::Digest as _;
    let of = |text: &str| -> [u8; 32] { sha2::Sha256::digest(text).into() };
    assert_eq!(of("{}"), digest(""));
    // RFC 8785, appendix B, and its rules for texts and order.
    for (written, canonical) in [
        (r#"{"b": 1, "a": 2}"#, r#"{"a":2,"b":1}"#),
        (
            r#"{"a": "\u20ac\u0024\u000f\nA'\u0042\u0022\u005c\\\"\/"}"#,
            "{\"a\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}",
        ),
        (
            r#"{"a": [333333333.3333333, 1E30, 4.50, 2e-3, 1e-27, -0, 100.0]}"#,
            r#"{"a":[333333333.3333333,1e+30,4.5,0.002,1e-27,0,100]}"#,
        ),
        (
            r#"{"a": [1e21, 1e20, 123e-9, 0.000001]}"#,
            r#"{"a":[1e+21,100000000000000000000,1.23e-7,0.000001]}"#,
        ),
        ("{\"\u{e9}\": 1, \"b\": null}", "{\"b\":null,\"\u{e9}\":1}"),
    ] {
        assert_eq!(of(canonical), digest(written), "{written}");
    }
}

#[test]
fn two_numbers_that_one_double_stands_for_have_two_digests() {
    assert_ne!(digest(r#"{"a": 9007199254740993}"#), digest(r#"{"a": 9007199254740992}"#));
    assert_ne!(digest(r#"{"a": 0.1000000000000000055511151231257827}"#), digest(r#"{"a": 0.1}"#));
    let typed = schema(json!({"type": "object", "properties": {"x": {"type": "number"}}}));
    let digest = |text: &str| typed.read(text.as_bytes()).unwrap().digest();
    assert_ne!(digest(r#"{"x": 0.1000000000000000055511151231257827}"#), digest(r#"{"x": 0.1}"#));
    assert_ne!(digest(r#"{"x": 1e-400}"#), digest(r#"{"x": 1e-401}"#));
}

#[test]
fn hostile_bytes_are_an_error_and_never_a_crash() {
    let schema = wide();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..20_000 {
        let mut bytes =
            br#"{"n": 1, "must": "x", "tags": ["a"], "price": 1.25, "any": {"k": [null]}}"#
                .to_vec();
        for _ in 0..=(round % 4) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = usize::try_from(state % 70).unwrap();
            bytes[at] = u8::try_from((state >> 32) & 0xff).unwrap();
        }
        let _ = schema.read(&bytes);
    }
    assert!(schema.read(&b"[".repeat(100_000)).is_err());
    assert!(schema.read(&vec![b' '; 2 << 20]).is_err());
}

/// A rich text whose nodes are of three types, as generators write it.
fn rich_text() -> serde_json::Value {
    let node = |name: &str| {
        json!({
            "type": "object", "required": ["type"],
            "properties": {"type": {"const": name}, "content": {"type": "array", "items": {"$ref": "#/$defs/n"}}}
        })
    };
    json!({
        "type": "object", "properties": {"x": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"anyOf": [node("p"), node("list"), node("quote")]}}
    })
}

fn nested(levels: usize, inmost: &str) -> String {
    let open = r#"{"type":"quote","content":["#.repeat(levels);
    format!(r#"{{"x":{open}{{"type":"{inmost}"}}{}}}"#, "]}".repeat(levels))
}

#[test]
fn a_union_that_leads_back_to_itself_is_checked_only_as_deep_as_that_is_cheap() {
    let schema = schema(rich_text());
    for levels in 0..=3 {
        assert!(schema.read(nested(levels, "p").as_bytes()).is_ok(), "{levels}");
        let error = schema.read(nested(levels, "bad").as_bytes()).unwrap_err().to_string();
        assert_eq!("argument `/x`: breaks `anyOf` of the schema", error, "{levels}");
    }
    let began = std::time::Instant::now();
    for inmost in ["p", "bad"] {
        let error = schema.read(nested(15, inmost).as_bytes()).unwrap_err().to_string();
        assert_eq!("arguments: nested too deep for the unions of the schema", error);
    }
    assert!(began.elapsed() < std::time::Duration::from_millis(50), "{:?}", began.elapsed());
    // Many nodes side by side multiply nothing.
    let leaf = r#"{"type":"list","content":[{"type":"p"}]}"#;
    let wide = format!(r#"{{"x":{{"type":"p","content":[{}]}}}}"#, [leaf; 500].join(","));
    schema.read(wide.as_bytes()).unwrap();
}

#[test]
fn recursion_without_choice_is_checked_to_the_depth_of_the_reader() {
    let schema = schema(json!({
        "type": "object", "properties": {"x": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"anyOf": [
            {"type": "object", "required": ["left"], "properties": {"left": {"$ref": "#/$defs/n"}, "right": {"$ref": "#/$defs/n"}}},
            {"type": "integer"}
        ]}}
    }));
    let deep = format!(r#"{{"x":{}7{}}}"#, r#"{"left":"#.repeat(30), "}".repeat(30));
    schema.read(deep.as_bytes()).unwrap();
}

#[test]
fn a_reference_that_never_goes_into_the_value_is_refused() {
    for (defs, place) in [
        (json!({"n": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "string"}]}}), ""),
        (json!({"n": {"allOf": [{"$ref": "#/$defs/m"}]}, "m": {"not": {"$ref": "#/$defs/n"}}}), ""),
        (json!({"n": {"anyOf": [{"$ref": "#name"}, {"$anchor": "name"}]}}), "/$defs/n/anyOf/0"),
    ] {
        let schema =
            json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": defs});
        let error = ArgumentSchema::compile(&schema).map(|_| ()).unwrap_err();
        assert_eq!(place, error.pointer(), "{error}");
    }
}

#[test]
fn the_items_of_a_tuple_are_checked() {
    let tuple = |version: &str, keyword: &str| {
        ArgumentSchema::compile(&json!({
            "$schema": version, "type": "object",
            "properties": {"t": {"type": "array", keyword: [{"type": "string"}, {"type": "integer"}]}}
        }))
    };
    let old = tuple("http://json-schema.org/draft-07/schema#", "items").unwrap();
    let new = tuple("https://json-schema.org/draft/2020-12/schema", "prefixItems").unwrap();
    for schema in [old, new] {
        schema.read(br#"{"t": ["a", 1]}"#).unwrap();
        for wrong in [r#"{"t": [{"a": 1}, 5]}"#, r#"{"t": ["a", null]}"#] {
            assert!(schema.read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
    assert!(tuple("https://json-schema.org/draft/2020-12/schema", "items").is_err());
}

#[test]
fn names_of_the_callers_making_occur_in_no_message() {
    let schema = wide();
    for (arguments, message) in [
        (r#"{"hunter2": 1}"#, "arguments: an undeclared member"),
        (r#"{"hunter2": 1, "hunter2": 1}"#, "arguments: an undeclared member: member named twice"),
        (
            r#"{"n": 1, "must": "x", "address": {"city": "x", "hunter2": 1}}"#,
            "argument `/address`: an undeclared member",
        ),
        (
            r#"{"n": 1, "must": "x", "map": {"hunter2": "y"}}"#,
            "argument `/map`: an undeclared member: breaks `type` of the schema",
        ),
        (
            r#"{"tags": {"1234": {"a": 1, "a": 2}}}"#,
            "argument `/tags`: an undeclared member: member named twice",
        ),
        (
            r#"{"any": [{"hunter2": {"a": 1, "a": 2}}]}"#,
            "argument `/any`: an undeclared member: member named twice",
        ),
    ] {
        let error = schema.read(arguments.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(message, error.to_string(), "{arguments}");
        assert!(!format!("{error:?}").contains("hunter2"), "{arguments}");
    }
}
