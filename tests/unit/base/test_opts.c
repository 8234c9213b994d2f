/* base/opts.h: the syntax, the numbers, the tables, and what a person is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/opts.h"
#include "base/util.h"

static void test_syntax(void **state)
{
	struct opts o;

	assert_int_equal(opts_parse(&o, "-drive", "a=1,flag,b=x,,y=z,,,c=,d=p=q", NULL, NULL),
			 0);
	assert_int_equal(o.count, 5);
	assert_string_equal(opts_get(&o, "a"), "1");
	assert_string_equal(opts_get(&o, "flag"), "on");
	assert_string_equal(opts_get(&o, "b"), "x,y=z,");
	assert_string_equal(opts_get(&o, "c"), "");
	assert_null(opts_get(&o, "e"));
	assert_string_equal(opts_get(&o, "d"), "p=q");
	assert_int_equal(opts_check_used(&o, NULL), 0);
	opts_fini(&o);
	opts_fini(&o);

	assert_int_equal(opts_parse(&o, "-x", "", "first", NULL), 0);
	assert_int_equal(o.count, 0);
	assert_int_equal(opts_parse(&o, "-x", "end,", NULL, NULL), 0);
	assert_int_equal(o.count, 1);
	opts_fini(&o);
}

static void test_first_key(void **state)
{
	struct opts o;

	assert_int_equal(opts_parse(&o, "-device", "virtio,,x,id=a,b", "driver", NULL), 0);
	assert_string_equal(opts_get(&o, "driver"), "virtio,x");
	assert_string_equal(opts_get(&o, "id"), "a");
	assert_string_equal(opts_get(&o, "b"), "on");
	opts_fini(&o);
	assert_int_equal(opts_parse(&o, "-device", "id=a,virtio", "driver", NULL), 0);
	assert_null(opts_get(&o, "driver"));
	assert_string_equal(opts_get(&o, "virtio"), "on");
	opts_fini(&o);
	assert_int_equal(opts_parse(&o, "-device", ",id=a", "driver", NULL), 0);
	assert_string_equal(opts_get(&o, "driver"), "");
	opts_fini(&o);
}

static void test_range(void **state)
{
	static const char *const bad[] = {"",  "-",	"1-", "-1",  "2-1",
					  "1-8", "8",	"a",  "1,2", "1-2-3",
					  "0000000000000000000000001-2"};
	uint64_t first, last;

	assert_int_equal(parse_range("7", 7, &first, &last), 0);
	assert_true(first == 7 && last == 7);
	assert_int_equal(parse_range("0-7", 7, &first, &last), 0);
	assert_true(first == 0 && last == 7);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse_range(bad[i], 7, &first, &last), -EINVAL);
	}
}

static void parse_fails(const char *text, const char *want)
{
	struct err err;
	struct opts o;

	assert_int_equal(opts_parse(&o, "-drive", text, NULL, &err), -EINVAL);
	assert_int_equal(o.count, 0);
	assert_string_equal(err.msg, want);
}

static void test_bad_syntax(void **state)
{
	static const char no_key[] =
		"-drive: a key is missing; write key=value, and ',,' for a "
		"comma within a value";
	char text[2048] = "";
	struct opts o;

	parse_fails("a=1,b=2,a=3", "-drive: 'a' is given twice; give it once");
	parse_fails("=1", no_key);
	parse_fails("a,,b", no_key);
	parse_fails(",", no_key);
	for (int i = 0; i < 257; i++) {
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "k%d,", i);
	}
	parse_fails(text, "-drive: more than 256 keys; remove some from 'k256' on");
	text[strlen(text) - 5] = '\0';
	assert_int_equal(opts_parse(&o, "-x", text, NULL, NULL), 0);
	assert_int_equal(o.count, 256);
	opts_fini(&o);
}

static void test_add(void **state)
{
	struct opts o = {.what = "device_add"};
	struct err err;

	assert_int_equal(opts_add(&o, "a", "x,y", &err), 0);
	assert_int_equal(opts_add(&o, "a", "2", &err), -EINVAL);
	assert_string_equal(err.msg, "device_add: 'a' is given twice; give it once");
	assert_int_equal(opts_add(&o, "", "2", &err), -EINVAL);
	assert_string_equal(opts_get(&o, "a"), "x,y");
	assert_int_equal(opts_add(&o, "b", "1", &err), 0);
	assert_int_equal(opts_check_used(&o, &err), -EINVAL);
	assert_string_equal(err.msg,
			    "device_add: there is no key 'b'; remove it or correct its name");
	opts_fini(&o);
}

static void test_numbers(void **state)
{
	static const char *const bad[] = {"",
					  "-1",
					  "+1",
					  " 1",
					  "1 ",
					  "0x",
					  "08",
					  "1k",
					  "x",
					  "18446744073709551616",
					  "0x10000000000000000"};
	uint64_t v;
	bool b;

	assert_int_equal(parse_u64("18446744073709551615", &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(parse_u64("0xFf", &v), 0);
	assert_true(v == 255);
	assert_int_equal(parse_u64("010", &v), 0);
	assert_true(v == 8);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse_u64(bad[i], &v), -EINVAL);
	}
	assert_int_equal(parse_bool("on", &b), 0);
	assert_true(b);
	assert_int_equal(parse_bool("false", &b), 0);
	assert_false(b);
	assert_int_equal(parse_bool("yes", &b), 0);
	assert_true(b);
	assert_int_equal(parse_bool("On", &b), -EINVAL);
	assert_int_equal(parse_bool("1", &b), -EINVAL);
	assert_int_equal(parse_bool("", &b), -EINVAL);
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		char unit;
		uint64_t want;
	} good[] = {
		{"0", 'b', 0},
		{"1", 'b', 1},
		{"1", 'M', MiB},
		{"512M", 'b', 512 * MiB},
		{"4g", 'M', 4 * GiB},
		{"3b", 'M', 3},
		{"1k", 'b', 1024},
		{"010", 'b', 10},
		{"1.5G", 'b', 3 * GiB / 2},
		{"0.5", 'k', 512},
		{"1.000000000000000000009E", 'b', UINT64_C(1) << 60},
		{"0x10", 'k', 16384},
		{"15E", 'b', UINT64_C(15) << 60},
		{"15.999999999999999999E", 'b', UINT64_MAX},
		{"1T", 'b', 1024 * GiB},
		{"18446744073709551615", 'b', UINT64_MAX},
		{"2P", 'b', UINT64_C(2) << 50},
		{"1.0", 'b', 1},
	};
	static const char *const bad[] = {
		"",
		"M",
		"-1",
		"1.5",
		"1.5b",
		"1.",
		".5G",
		"1GB",
		"1GiB",
		"1 G",
		"0x1G",
		"16E",
		"18446744073709551616",
		"184467440737095516160",
		"1e3",
		"0x10000000000000000",
	};
	uint64_t v;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(parse_size(good[i].text, good[i].unit, &v), 0);
		if (good[i].want != UINT64_MAX || strchr(good[i].text, '.') == NULL) {
			assert_true(v == good[i].want);
		} else {
			assert_true(v > UINT64_MAX - 32 && v < UINT64_MAX);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse_size(bad[i], 'b', &v), -EINVAL);
	}
	assert_int_equal(parse_size("0x1000000000000000", 'M', &v), -EINVAL);
	assert_int_equal(parse_size("18446744073709551615", 'k', &v), -EINVAL);
}

struct disk {
	char *file, *serial;
	bool readonly, direct;
	uint16_t queues;
	uint32_t timeout;
	uint64_t count, size;
	int aio;
};

static const char *const aio_names[] = {"threads", "io_uring", NULL};
static const struct opt_desc disk_descs[] = {
	{.key = "file",
	 .type = OPT_STR,
	 .offset = offsetof(struct disk, file),
	 .required = true},
	{.key = "serial",
	 .type = OPT_STR,
	 .offset = offsetof(struct disk, serial),
	 .def = "none"},
	{.key = "readonly", .type = OPT_BOOL, .offset = offsetof(struct disk, readonly)},
	{.key = "direct",
	 .type = OPT_BOOL,
	 .offset = offsetof(struct disk, direct),
	 .def = "on"},
	{.key = "queues", .type = OPT_U16, .offset = offsetof(struct disk, queues), .min = 1},
	{.key = "timeout", .type = OPT_U32, .offset = offsetof(struct disk, timeout)},
	{.key = "count",
	 .type = OPT_U64,
	 .offset = offsetof(struct disk, count),
	 .min = 2,
	 .max = 9,
	 .def = "3"},
	{.key = "size", .type = OPT_SIZE, .offset = offsetof(struct disk, size), .min = 512},
	{.key = "aio",
	 .type = OPT_ENUM,
	 .offset = offsetof(struct disk, aio),
	 .names = aio_names,
	 .def = "io_uring"},
	{0},
};

static void test_read(void **state)
{
	struct disk d = {.serial = strdup("old"), .timeout = 77};
	struct opts o;

	assert_int_equal(opts_parse(&o, "-drive",
				    "file=x,readonly=yes,queues=65535,size=1k,"
				    "count=0x9,aio=threads,direct=off,serial=S",
				    NULL, NULL),
			 0);
	assert_int_equal(opts_read(&o, disk_descs, &d, NULL), 0);
	opts_fini(&o);
	assert_string_equal(d.file, "x");
	assert_string_equal(d.serial, "S");
	assert_true(d.readonly);
	assert_false(d.direct);
	assert_int_equal(d.queues, 65535);
	assert_int_equal(d.timeout, 77);
	assert_int_equal(d.count, 9);
	assert_int_equal(d.size, 1024);
	assert_int_equal(d.aio, 0);
	opts_free_struct(disk_descs, &d);
	opts_free_struct(disk_descs, &d);
	assert_null(d.file);

	d = (struct disk){0};
	assert_int_equal(opts_parse(&o, "-drive", "x", "file", NULL), 0);
	assert_int_equal(opts_read(&o, disk_descs, &d, NULL), 0);
	opts_fini(&o);
	assert_string_equal(d.serial, "none");
	assert_true(d.direct);
	assert_int_equal(d.count, 3);
	assert_int_equal(d.aio, 1);
	opts_free_struct(disk_descs, &d);
}

static void test_read_bad(void **state)
{
	static const char *const cases[][2] = {
		{"serial=a", "-drive: 'file' is missing; add file=…"},
		{"file=x,readonly=maybe",
		 "-drive: readonly=maybe is not valid; give on or off"},
		{"file=x,queues=0", "-drive: queues=0 is not valid; give 1 to 65535"},
		{"file=x,queues=65536", "-drive: queues=65536 is not valid; give 1 to 65535"},
		{"file=x,timeout=4294967296",
		 "-drive: timeout=4294967296 is not valid; give 0 to 4294967295"},
		{"file=x,count=10", "-drive: count=10 is not valid; give 2 to 9"},
		{"file=x,count=-1", "-drive: count=-1 is not valid; give a number"},
		{"file=x,size=511", "-drive: size=511 is not valid; the least is 512"},
		{"file=x,size=big",
		 "-drive: size=big is not valid; give a size such as 512M or 4G"},
		{"file=x,aio=native",
		 "-drive: aio=native is not valid; give one of threads, io_uring"},
		{"file=x,fiel=y", "-drive: there is no key 'fiel'; there are file, serial, "
				  "readonly, direct, queues, timeout, count, size, aio"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct disk d = {0};
		struct err err;
		struct opts o;

		assert_int_equal(opts_parse(&o, "-drive", cases[i][0], NULL, &err), 0);
		assert_int_equal(opts_read(&o, disk_descs, &d, &err), -EINVAL);
		assert_string_equal(err.msg, cases[i][1]);
		opts_fini(&o);
		opts_free_struct(disk_descs, &d);
	}
}

static void test_uuid(void **state)
{
	static const uint8_t want[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
					 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
	static const char *const bad[] = {
		"",
		"00112233-4455-6677-8899-aabbccddeef",
		"00112233-4455-6677-8899-aabbccddeefff",
		"00112233-4455-6677-8899-aabbccddeefg",
		"0011223344556677-8899-aabb-ccddeeff",
		"00112233 4455-6677-8899-aabbccddeeff",
		"0011223-34455-6677-8899-aabbccddeeff",
		"+0112233-4455-6677-8899-aabbccddeeff",
	};
	uint8_t uuid[16];

	assert_int_equal(parse_uuid("00112233-4455-6677-8899-aAbBccddeeff", uuid), 0);
	assert_memory_equal(uuid, want, 16);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse_uuid(bad[i], uuid), -EINVAL);
	}
}

/* A key of a list may come again: its elements are numbered, like those of a JSON array. */
static void test_lists(void **state)
{
	static const char *const lists[] = {"fwd", "dns", NULL};
	struct err err = {.msg = ""};
	struct opts o;

	assert_int_equal(opts_parse_lists(&o, "-x", "user,fwd=a,dns=d,fwd=b,,c,id=fwd,fwd", "type", lists,
					  &err), 0);
	assert_string_equal(opts_get_item(&o, "fwd", 0), "a");
	assert_null(opts_get_item(&o, "fwd", 3));
	assert_string_equal(opts_get(&o, "fwd.1"), "b,c");
	assert_string_equal(opts_get(&o, "fwd.2"), "on");
	assert_string_equal(opts_get(&o, "dns.0"), "d");
	assert_string_equal(opts_get(&o, "id"), "fwd");
	assert_null(opts_get(&o, "fwd"));
	opts_fini(&o);
	assert_int_equal(opts_parse_lists(&o, "-x", "id=1,id=2", NULL, lists, &err), -EINVAL);
	assert_int_equal(opts_parse_lists(&o, "-x", "fwd.0=1,fwd=2,fwd.1=3", NULL, lists, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "fwd.1"));
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_syntax),	   cmocka_unit_test(test_first_key),
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_bad_syntax), cmocka_unit_test(test_add),
		cmocka_unit_test(test_numbers),	   cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_read),	   cmocka_unit_test(test_read_bad),
		cmocka_unit_test(test_uuid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
