/*
 * Cutting a stream into JSON values: every way of splitting the input gives the same values;
 * garbage, values that are too large or too deep, quotes and escapes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/qmp_frame.h"

/* What comes out, as text: values in order, "!" for garbage, "#" for too big. */
static void feed(struct qmp_frame *f, const char *in, size_t n, size_t step, char *out,
		 size_t max)
{
	size_t at = 0;

	out[0] = 0;
	while (at < n) {
		size_t part = step < n - at ? step : n - at, used = 0;

		while (part > 0) {
			enum qmp_frame_result r = qmp_frame_feed(f, in + at, part, &used);
			size_t len = strlen(out);

			assert_true(used <= part);
			assert_true(used > 0 || r == QMP_FRAME_GARBAGE);
			at += used;
			part -= used;
			switch (r) {
			case QMP_FRAME_VALUE:
				assert_int_equal(f->buf[f->len], 0);
				snprintf(out + len, max - len, "%.*s;", (int)f->len, f->buf);
				break;
			case QMP_FRAME_GARBAGE:
				snprintf(out + len, max - len, "!");
				break;
			case QMP_FRAME_TOO_BIG:
				snprintf(out + len, max - len, "#");
				break;
			case QMP_FRAME_MORE:
				assert_int_equal(part, 0);
				break;
			default:
				fail();
			}
		}
	}
}

static void test_values(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"{}", "{};"},
		{"{}{}[]", "{};{};[];"},
		{" \r\n\t{ \"a\" : 1 }\n", "{ \"a\" : 1 };"},
		{"{\"a\":{\"b\":[1,2,{}]}}", "{\"a\":{\"b\":[1,2,{}]}};"},
		/* brackets in strings do not count */
		{"{\"a\":\"}]{[\"}", "{\"a\":\"}]{[\"};"},
		{"{\"a\":\"\\\"}\"}", "{\"a\":\"\\\"}\"};"},
		{"{\"a\":\"\\\\\"}", "{\"a\":\"\\\\\"};"},
		{"{\"a\":\"\\u0022\"}", "{\"a\":\"\\u0022\"};"},
		/* single quotes become double ones */
		{"{'a':'b'}", "{\"a\":\"b\"};"},
		{"{'a\"b':\"c'd\"}", "{\"a\\\"b\":\"c'd\"};"},
		{"{'it\\'s':1}", "{\"it's\":1};"},
		{"{'a':'\\\"'}", "{\"a\":\"\\\"\"};"},
		/* what is no value is skipped to the line's end or the next bracket */
		{"hello\n{}", "!{};"},
		{"hello{}", "!{};"},
		{"}}}]\n\n{}", "!{};"},
		{"\"string\"\n1\n", "!!"},
		{"\n\n\n", ""},
		{"{\n\"a\"\n:\n1\n}", "{\n\"a\"\n:\n1\n};"},
		/* wrong brackets are the parser's to refuse; the stream stays in step */
		{"{]{}", "{];{};"},
		{"[}[]", "[};[];"},
	};
	char out[512];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t n = strlen(cases[i].in);

		for (size_t step = 1; step <= n; step++) {
			struct qmp_frame f = {0};

			feed(&f, cases[i].in, n, step, out, sizeof(out));
			assert_string_equal(out, cases[i].out);
			assert_int_equal(f.depth, 0);
			qmp_frame_fini(&f);
		}
	}
	(void)state;
}

/* What is in no JSON text ends whatever was begun, wherever it stands. */
static void test_breaking_off(void **state)
{
	static const char *const begun[] = {"",		  "x",	   "{",	 "{\"a\":[{",
					    "{\"a\":\"b", "{'a\\", "[[["};
	static const unsigned char bytes[] = {0, 1, 8, 0x1f, 0xfe, 0xff};
	struct qmp_frame f = {0};
	char in[64];
	size_t used, n;

	for (size_t i = 0; i < sizeof(begun) / sizeof(begun[0]); i++) {
		for (size_t k = 0; k < sizeof(bytes) + 3; k++) {
			bool line = k >= sizeof(bytes); /* ends a string only */

			n = strlen(begun[i]);
			if (line && i != 4 && i != 5) {
				continue;
			}
			memcpy(in, begun[i], n);
			in[n] = line ? "\t\r\n"[k - sizeof(bytes)] : (char)bytes[k];
			memcpy(in + n + 1, "{\"c\":2}", 7);
			assert_int_equal(qmp_frame_feed(&f, in, n + 8, &used),
					 QMP_FRAME_GARBAGE);
			assert_int_equal(used, n + 1);
			assert_int_equal(f.depth, 0);
			assert_int_equal(qmp_frame_feed(&f, in + n + 1, 7, &used),
					 QMP_FRAME_VALUE);
			assert_string_equal(f.buf, "{\"c\":2}");
		}
	}
	qmp_frame_fini(&f);
	(void)state;
}

static void test_values_cap(void **state)
{
	struct qmp_frame f = {0};
	char *in = malloc(2 * QMP_FRAME_VALUES + 64);
	size_t n = 0, used;

	in[n++] = '[';
	for (unsigned i = 0; i < QMP_FRAME_VALUES + 8; i++) {
		in[n++] = '1';
		in[n++] = ',';
	}
	in[n - 1] = ']';
	assert_int_equal(qmp_frame_feed(&f, in, n, &used), QMP_FRAME_TOO_BIG);
	assert_int_equal(used, n);
	in[2 * (QMP_FRAME_VALUES - 100)] = ']';
	assert_int_equal(qmp_frame_feed(&f, in, 2 * (QMP_FRAME_VALUES - 100) + 1, &used),
			 QMP_FRAME_VALUE);
	qmp_frame_fini(&f);
	free(in);
	(void)state;
}

/* {"k":"xxx…"} of `total` bytes */
static char *value_of(size_t total)
{
	char *v = malloc(total + 1);

	assert_non_null(v);
	memset(v, 'x', total);
	memcpy(v, "{\"k\":\"", 6);
	memcpy(v + total - 2, "\"}", 3);
	return v;
}

static void test_size_cap(void **state)
{
	static const struct {
		size_t total;
		enum qmp_frame_result r;
	} cases[] = {
		{QMP_FRAME_MAX - 1, QMP_FRAME_VALUE},	{QMP_FRAME_MAX, QMP_FRAME_VALUE},
		{QMP_FRAME_MAX + 1, QMP_FRAME_TOO_BIG}, {5 * QMP_FRAME_MAX, QMP_FRAME_TOO_BIG},
		{QMP_FRAME_MAX, QMP_FRAME_VALUE},
	};
	struct qmp_frame f = {0};
	size_t used;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *v = value_of(cases[i].total);

		assert_int_equal(qmp_frame_feed(&f, v, cases[i].total, &used), cases[i].r);
		assert_int_equal(used, cases[i].total);
		assert_true(f.cap <= 2 * (size_t)QMP_FRAME_MAX);
		if (cases[i].r == QMP_FRAME_VALUE) {
			assert_int_equal(f.len, cases[i].total);
			assert_string_equal(f.buf, v);
		}
		free(v);
		/* in step, and the large buffer is given back */
		assert_int_equal(qmp_frame_feed(&f, "{}", 2, &used), QMP_FRAME_VALUE);
		assert_string_equal(f.buf, "{}");
		assert_true(f.cap <= 64 * 1024);
	}
	qmp_frame_fini(&f);
	(void)state;
}

static void test_depth_cap(void **state)
{
	struct qmp_frame f = {0};
	char in[2 * 1000];
	size_t used;

	for (size_t depth = QMP_FRAME_DEPTH - 1; depth <= QMP_FRAME_DEPTH + 2; depth++) {
		memset(in, '[', depth);
		memset(in + depth, ']', depth);
		assert_int_equal(qmp_frame_feed(&f, in, 2 * depth, &used),
				 depth <= QMP_FRAME_DEPTH ? QMP_FRAME_VALUE
							  : QMP_FRAME_TOO_BIG);
		assert_int_equal(used, 2 * depth);
	}
	memset(in, '[', 1000);
	memset(in + 1000, ']', 1000);
	assert_int_equal(qmp_frame_feed(&f, in, 2000, &used), QMP_FRAME_TOO_BIG);
	assert_int_equal(qmp_frame_feed(&f, "{}", 2, &used), QMP_FRAME_VALUE);
	qmp_frame_fini(&f);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),	   cmocka_unit_test(test_breaking_off),
		cmocka_unit_test(test_values_cap), cmocka_unit_test(test_size_cap),
		cmocka_unit_test(test_depth_cap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
