/*
 * iothread-vq-mapping: both forms, every refusal.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "control/cli.h"
#include "machine/machine_int.h"
#include "machine/vq_map.h"

#define M "iothread-vq-mapping"

/* Loops that are only compared. */
static int a, b, c;
static struct named_loop named[] = {
	{(char *)"a", (struct loop *)&a},
	{(char *)"b", (struct loop *)&b},
	{(char *)"c", (struct loop *)&c},
};
static struct backends be = {.io = named, .nio = ARRAY_SIZE(named)};

/* Names of the loops of n queues, one letter each; NULL: none given. -errno with err. */
static int map(const char *text, unsigned n, bool pairs, char *out, struct err *err)
{
	struct vq_map m = {0};
	struct loop *loops[VIRTIO_MAX_QUEUES] = {NULL};
	struct opts o;
	int ret;

	if (text[0] == '{') {
		ret = cli_json_to_opts("-device", text, &o, err);
	} else {
		ret = opts_parse(&o, "-device", text, "driver", err);
	}
	assert_int_equal(ret, 0);
	opts_get(&o, "driver");
	ret = vq_map_take(&m, &o, err);
	if (!ret) {
		ret = opts_check_used(&o, err);
	}
	if (!ret) {
		ret = vq_map_loops(&m, &be, n, pairs, loops, err);
	}
	for (unsigned i = 0; i < n && !ret; i++) {
		out[i] = '-';
		for (unsigned k = 0; k < ARRAY_SIZE(named); k++) {
			out[i] = loops[i] == named[k].loop ? named[k].id[0] : out[i];
		}
	}
	out[n] = '\0';
	opts_fini(&o);
	return ret;
}

static void good(const char *text, unsigned n, bool pairs, const char *want)
{
	struct err err = {.msg = ""};
	char got[VIRTIO_MAX_QUEUES + 1];

	if (map(text, n, pairs, got, &err)) {
		fail_msg("%s: %s", text, err.msg);
	}
	assert_string_equal(got, want);
}

static void bad(const char *text, unsigned n, bool pairs, const char *says)
{
	struct err err = {.msg = ""};
	char got[VIRTIO_MAX_QUEUES + 1];

	assert_true(map(text, n, pairs, got, &err) < 0);
	if (!strstr(err.msg, says)) {
		fail_msg("%s: '%s' does not say '%s'", text, err.msg, says);
	}
}

static void test_in_turn(void **state)
{
	good("x", 4, false, "----");
	good("x," M ".0.iothread=a", 3, false, "aaa");
	good("x," M ".0.iothread=a," M ".1.iothread=b", 5, false, "ababa");
	good("x," M ".0.iothread=c," M ".1.iothread=b," M ".2.iothread=a", 2, true, "cb");
	good("{\"driver\":\"x\",\"" M "\":[{\"iothread\":\"b\"},{\"iothread\":\"a\"}]}", 4,
	     true, "baba");
	(void)state;
}

static void test_listed(void **state)
{
	good("x," M ".0.iothread=a," M ".0.vqs.0=1," M ".1.iothread=b," M ".1.vqs.0=2," M
	     ".1.vqs.1=0",
	     3, false, "bab");
	good("{\"driver\":\"x\",\"" M "\":[{\"iothread\":\"b\",\"vqs\":[3,0]},"
	     "{\"iothread\":\"a\",\"vqs\":[1,2]}]}",
	     4, false, "baab");
	(void)state;
}

static void test_all_queues(void **state)
{
	char text[4096] = "x," M ".0.iothread=a", want[65];

	for (unsigned i = 0; i < 64; i++) {
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "," M ".0.vqs.%u=%u",
			 i, 63 - i);
		want[i] = 'a';
	}
	want[64] = '\0';
	good(text, 64, false, want);
	(void)state;
}

static void test_refusals(void **state)
{
	bad("x," M ".0.iothread=z", 2, false, "-object iothread,id=z");
	bad("x," M ".0.iothread=a," M ".1.iothread=a", 2, false, "'a' is named twice");
	bad("x," M ".0.iothread=a," M ".0.vqs.0=0," M ".1.iothread=b", 2, false, "or for none");
	bad("x," M ".0.iothread=a," M ".0.vqs.0=0", 2, false, "is given queue 1");
	bad("x," M ".0.iothread=a," M ".0.vqs.0=0," M ".0.vqs.1=7", 2, false, "queue 7");
	bad("x," M ".0.iothread=a," M ".0.vqs.0=0," M ".0.vqs.1=0", 2, false, "twice");
	bad("x," M ".0.iothread=a," M ".0.vqs.0=0," M ".1.iothread=b," M ".1.vqs.0=0", 1, false,
	    "two iothreads");
	bad("x," M ".0.iothread=a," M ".0.vqs.0=64", 2, false, "vqs.0=64");
	bad("x," M ".0.iothread=a," M ".0.vqs.0=-1", 2, false, "vqs.0=-1");
	bad("x," M ".0.iothread=a," M ".0.vqs.0=0", 1, true, "leave vqs away");
	/* what is not in the form: no key is left unread */
	bad("x," M ".1.iothread=a", 2, false, M ".1.iothread");
	bad("x," M "=a", 2, false, M);
	bad("x," M ".0.iothread=a," M ".0.vqs.1=0", 2, false, M ".0.vqs.1");
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_turn),
		cmocka_unit_test(test_listed),
		cmocka_unit_test(test_all_queues),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests_name("iothread-vq-mapping", tests, NULL, NULL);
}
