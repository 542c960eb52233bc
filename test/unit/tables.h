/*
 * tables.h
 *	  What unit.c expects, row by row.
 */
#ifndef FLOHSYNC_UNIT_TABLES_H
#define FLOHSYNC_UNIT_TABLES_H

/* clang-format off */
static const char *const accepted[] = {
	"{}", "[]", "0", "-0", "1e5", "1E+5", "1.5e-7", "-12.25", "\"\"", "\"a\"", "true", "false", "null",
	" [ 1 , 2 ] ", "\t\r\n{ \"a\" : 1 }\n", "[[],{}]", "{\"a\":{\"b\":[]}}", "{\"\":1}", "{\"a\":1,\"a\":2}",
	"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"", "\"\\ud83d\\ude00\"", "\"\\ud800\"", "\"\\u0000\"",
	"\"\x7f\"", "\"0123456789abcdef0123456789abcdef\"", "0e999999", "123456789012345678901234567890"
};
/* clang-format on */

/* clang-format off */
static const char *const refused[] = {
	"", " ", "{", "}", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}",
	"{,}", "{a:1}", "{1:2}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "[1}", "{\"a\":1]", "1 2", "[] []", "{}x",
	"tru", "truee", "True", "nul", "NaN", "Infinity", "-Infinity", "+1", "01", "-01", "-", "1.", ".5", "1.e5",
	"1e", "1e+", "1e-", "0x10", "1a", "--1", "'a'", "\"", "\"a", "\"a\\\"", "\"\\x\"", "\"\\u12\"",
	"\"\\u12g4\"", "\"\\u 123\"", "\"\\ud800\\u12\"", "\"\t\"", "\"a\nb\"", "\"0123456789abcdef\x01\"",
	"/* */1", "1//", "\xEF\xBB\xBF\xEF\xBB\xBF" "1", "[\"a\",\"b\"", "\x0b" "1", "\f1", "\xC2\xA0" "1"
};
/* clang-format on */

static const char *const canonical_pairs[][2] = {
	/* RFC 8785, 3.2.2 and 3.2.3 */
	{"{\"numbers\": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],"
	 "\"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\","
	 "\"literals\": [null, true, false]}",
	 "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],"
	 "\"string\":\"\xE2\x82\xAC$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"},
	{"{\"\\u20ac\": \"Euro Sign\",\"\\r\": \"Carriage Return\",\"\\ufb33\": \"Hebrew Letter Dalet With Dagesh\","
	 "\"1\": \"One\",\"\\ud83d\\ude00\": \"Emoji: Grinning Face\",\"\\u0080\": \"Control\","
	 "\"\\u00f6\": \"Latin Small Letter O With Diaeresis\"}",
	 "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xC2\x80\":\"Control\","
	 "\"\xC3\xB6\":\"Latin Small Letter O With Diaeresis\",\"\xE2\x82\xAC\":\"Euro Sign\","
	 "\"\xF0\x9F\x98\x80\":\"Emoji: Grinning Face\",\"\xEF\xAC\xB3\":\"Hebrew Letter Dalet With Dagesh\"}"},
	/* the same keys unescaped, and behind a long common start */
	{"{\"\xEF\xAC\xB3\":1,\"\xF0\x9F\x98\x80\":2}", "{\"\xF0\x9F\x98\x80\":2,\"\xEF\xAC\xB3\":1}"},
	{"{\"0123456789\xEF\xAC\xB3\":1,\"0123456789\xF0\x9F\x98\x80\":2}",
	 "{\"0123456789\xF0\x9F\x98\x80\":2,\"0123456789\xEF\xAC\xB3\":1}"},
	{"{\"b\":1,\"a\":2,\"\":3,\"aa\":4,\"a\\u0000\":5}", "error"},
	{"{\"b\":1,\"a\":2,\"\":3,\"aa\":4,\"a\\u0001\":5}",
	 "{\"\":3,\"a\":2,\"a\\u0001\":5,\"aa\":4,\"b\":1}"},
	{"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\":3,\"b\":2}"},
	{"{\"a\":1,\"\\u0061\":{\"x\":[]}}", "{\"a\":{\"x\":[]}}"},
	{"[[{\"b\":[{\"d\":1,\"c\":2}],\"a\":{}}],{}]", "[[{\"a\":{},\"b\":[{\"c\":2,\"d\":1}]}],{}]"},
	{" [ ] ", "[]"},
	{"{ }", "{}"},
	{"[ [ 1 ] , 2 ]", "[[1],2]"},
	{"\"\\b\\f\\n\\r\\t\\u001f\\u007f\\/\"", "\"\\b\\f\\n\\r\\t\\u001f\x7f/\""},
	{"\"\xF0\x9F\x98\x80\"", "\"\xF0\x9F\x98\x80\""},
	/* numbers */
	{"[0,-0,0.0,-0.0,0e5,-0e-7,0.000]", "[0,0,0,0,0,0,0]"},
	{"[1,1.0,10e-1,0.1e1,1.000e0]", "[1,1,1,1,1]"},
	{"[100,1e2,1.00E+2,1000e-1]", "[100,100,100,100]"},
	{"[0.1,0.10,1e-1,0.01,0.000001,0.0000001,0.00000012]",
	 "[0.1,0.1,0.1,0.01,0.000001,1e-7,1.2e-7]"},
	{"[1e20,1e21,123e19,-1e21,1e22,1e23]",
	 "[100000000000000000000,1e+21,1.23e+21,-1e+21,1e+22,1e+23]"},
	{"[9007199254740992,9007199254740993,9007199254740994]",
	 "[9007199254740992,9007199254740993,9007199254740994]"},
	{"12345678901234567890", "12345678901234567890"},
	{"-12345678901234567891", "-12345678901234567891"},
	{"12345678901234567890.0", "12345678901234567890"},
	{"1234567890123456789e1", "12345678901234567890"},
	{"123456789012345678e5", "12345678901234567800000"},
	{"999999999999999900000", "999999999999999900000"},
	{"9999999999999999000000", "9999999999999999000000"},
	{"1234567890123456000000", "1.234567890123456e+21"},
	{"100000000000000000000000000000000000000", "1e+38"},
	{"0.30000000000000004", "0.30000000000000004"},
	{"0.300000000000000041", "0.30000000000000004"},
	{"0.1234567890123456789", "0.12345678901234568"},
	{"1234567890.12345678901", "1234567890.1234567"},
	{"9007199254740993.5", "9007199254740994"},
	{"5e-324", "5e-324"},
	{"4.9406564584124654e-324", "5e-324"},
	{"2e-323", "2e-323"},
	{"1.7976931348623157e308", "1.7976931348623157e+308"},
	{"[123456789012345,1234567890123456]", "[123456789012345,1234567890123456]"},
	{"[-5,-0.5,-1.50]", "[-5,-0.5,-1.5]"}};

/* RFC 8785, appendix B, but for the two that are no numbers. */
static const struct
{
	uint64		bits;
	const char *text;
} ieee_numbers[] = {
	{UINT64CONST(0x0000000000000000), "0"},
	{UINT64CONST(0x8000000000000000), "0"},
	{UINT64CONST(0x0000000000000001), "5e-324"},
	{UINT64CONST(0x8000000000000001), "-5e-324"},
	{UINT64CONST(0x7fefffffffffffff), "1.7976931348623157e+308"},
	{UINT64CONST(0xffefffffffffffff), "-1.7976931348623157e+308"},
	{UINT64CONST(0x4340000000000000), "9007199254740992"},
	{UINT64CONST(0xc340000000000000), "-9007199254740992"},
	{UINT64CONST(0x4430000000000000), "295147905179352830000"},
	{UINT64CONST(0x44b52d02c7e14af5), "9.999999999999997e+22"},
	{UINT64CONST(0x44b52d02c7e14af6), "1e+23"},
	{UINT64CONST(0x44b52d02c7e14af7), "1.0000000000000001e+23"},
	{UINT64CONST(0x444b1ae4d6e2ef4e), "999999999999999700000"},
	{UINT64CONST(0x444b1ae4d6e2ef4f), "999999999999999900000"},
	{UINT64CONST(0x444b1ae4d6e2ef50), "1e+21"},
	{UINT64CONST(0x3eb0c6f7a0b5ed8c), "9.999999999999997e-7"},
	{UINT64CONST(0x3eb0c6f7a0b5ed8d), "0.000001"},
	{UINT64CONST(0x41b3de4355555553), "333333333.3333332"},
	{UINT64CONST(0x41b3de4355555554), "333333333.33333325"},
	{UINT64CONST(0x41b3de4355555555), "333333333.3333333"},
	{UINT64CONST(0x41b3de4355555556), "333333333.3333334"},
	{UINT64CONST(0x41b3de4355555557), "333333333.33333343"},
	{UINT64CONST(0xbecbf647612f3696), "-0.0000033333333333333333"},
	{UINT64CONST(0x43143ff3c1cb0959), "1424953923781206.2"},
};

/* A record, and "good" or the class it is set aside with. */
static const char *const record_classes[][2] = {
	{"{\"externalId\":\"a\"}", "good"},
	{"{\"externalId\":\"a\",\"other\":{\"x\":1}}", "good"},
	{"{\"externalId\":0}", "good"},
	{"{}", "external_id_missing"},
	{"{\"externalId\":null}", "external_id_missing"},
	{"{\"externalid\":\"a\"}", "external_id_missing"},
	{"{\"externalId\":\"\"}", "external_id_empty"},
	{"{\"externalId\":1.5}", "external_id_type"},
	{"{\"externalId\":1e3}", "external_id_type"},
	{"{\"externalId\":true}", "external_id_type"},
	{"{\"externalId\":{}}", "external_id_type"},
	{"{\"externalId\":[\"a\"]}", "external_id_type"},
	{"{\"externalId\":\"a\",\"displayName\":1}", "display_name_type"},
	{"{\"externalId\":\"a\",\"displayName\":{}}", "display_name_type"},
	{"{\"externalId\":\"a\",\"email\":{}}", "email_type"},
	{"{\"externalId\":\"a\",\"email\":false}", "email_type"},
	{"{\"externalId\":\"a\",\"email\":\"\"}", "good"},
	{"{\"externalId\":\"a\",\"attributes\":[]}", "attributes_type"},
	{"{\"externalId\":\"a\",\"attributes\":\"x\"}", "attributes_type"},
	{"{\"externalId\":\"a\",\"attributes\":{}}", "good"},
	{"\"a\"", "record_type"},
	{"null", "record_type"},
	{"[]", "record_type"},
	{"7", "record_type"},
	{"{\"externalId\":\"a\\u0000b\"}", "nul_character"},
	{"{\"externalId\":\"a\",\"attributes\":{\"k\":[\"\\\\u0000\"]}}", "good"},
	{"{\"externalId\":\"a\",\"attributes\":{\"k\":[\"\\\\\\u0000\"]}}", "nul_character"},
	{"{\"externalId\":\"a\",\"attributes\":{\"\\u0000\":1}}", "nul_character"},
	{"{\"externalId\":\"a\",\"attributes\":{\"k\":\"\\ud800x\"}}", "invalid_unicode"},
	{"{\"externalId\":\"a\",\"displayName\":\"\\udc00\"}", "invalid_unicode"},
	{"{\"externalId\":\"a\",\"displayName\":\"\\ud83d\\ude00\"}", "good"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":1e400}}", "good"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":1e-400}}", "good"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":1e401}}", "number_out_of_range"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":10e400}}", "number_out_of_range"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":1e-401}}", "number_out_of_range"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":0.01e402}}", "good"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":0e999999}}", "good"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":0e-999999}}", "number_out_of_range"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":0e99999999999999999999}}", "number_out_of_range"},
	{"{\"externalId\":\"a\",\"attributes\":{\"n\":1e99999999999999999999}}", "number_out_of_range"},
};

static const char *const page_problems[] = {
	"",
	"[]",
	"null",
	"{",
	"<html>",
	"{\"success\":true}",
	"{\"success\":true,\"payload\":[]}",
	"{\"success\":true,\"payload\":{}}",
	"{\"success\":true,\"payload\":{\"resources\":null}}",
	"{\"success\":true,\"payload\":{\"resources\":{}}}",
	"{\"success\":true,\"payload\":{\"resources\":[]}} x",
	"{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":{}}}",
	"{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":true}}",
	"{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":1.5}}",
	"{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":\"\\u0000\"}}",
	"{\"success\":true,\"payload\":{\"resources\":[],\"nextCursor\":\"\xFF\"}}",
	"{\"success\":true,\"payload\":{\"resources\":[],\"deleted\":{}}}",
	"{\"success\":true,\"payload\":{\"resources\":[{\"externalId\":\"a\"}",
	"{\"success\":true,\"payload\":{\"resources\":[1,]}}"};

/* An answer without success, and its reason; NULL: any. */
static const char *const page_failures[][2] = {
	{"{}", NULL},
	{"{\"success\":false}", NULL},
	{"{\"success\":\"true\",\"payload\":{\"resources\":[]}}", NULL},
	{"{\"success\":1,\"payload\":{\"resources\":[]}}", NULL},
	{"{\"payload\":{\"resources\":[]}}", NULL},
	{"{\"success\":false,\"error\":\"no \\\"luck\\\"\"}", "no \"luck\""},
	{"{\"success\":false,\"error\":{\"message\":\"denied\",\"code\":3}}", "denied"},
	{"{\"success\":false,\"message\":\"later\"}", "later"},
	{"{\"success\":false,\"error\":\"\",\"message\":\"later\"}", "later"},
	{"{\"success\":false,\"error\":{\"code\":3},\"message\":\"later\"}", "later"},
	{"{\"success\":false,\"error\":\"a\\u0000b\"}",
	 "a\xEF\xBF\xBD"
	 "b"},
	{"{\"success\":false,\"error\":\"\xFF\"}", NULL}};

static const char *const cursors[][2] = {
	{"null", NULL},		{"\"\"", NULL},
	{"\"abc\"", "abc"}, {"\"a\\u0062\\n\"", "ab\n"},
	{"17", "17"},		{"-1", "-1"},
	{"0", "0"},			{"98765432109876543210", "98765432109876543210"}};

#endif /* FLOHSYNC_UNIT_TABLES_H */
