/* -smbios: each key finds its place, repeated ones add up or contradict, refusals name them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "machine/smbios_opts.h"

/* One -smbios for each text, up to NULL. */
static int parse(struct vm_config *c, struct smbios_facts *f, struct err *err,
		 const char *const *text)
{
	vm_config_init(c);
	c->sockets = 2;
	c->dies = 2;
	c->cores = 3;
	c->threads = 2;
	for (; *text; text++) {
		c->smbios.item = realloc(c->smbios.item,
					 (c->smbios.count + 1) * sizeof(*c->smbios.item));
		assert_int_equal(opts_parse_lists(&c->smbios.item[c->smbios.count++].opts,
						  "-smbios", *text, NULL, smbios_list_keys, err),
				 0);
	}
	return smbios_facts_init(f, c, err);
}

static void done(struct vm_config *c, struct smbios_facts *f)
{
	smbios_facts_fini(f);
	vm_config_fini(c);
}

static void test_keys(void **state)
{
	struct vm_config c;
	struct smbios_facts f;
	char path[] = "/tmp/nemu-oem-XXXXXX", option[128];
	int fd = mkstemp(path);
	struct err err;

	assert_int_equal(write(fd, "line 1\nline 2\n", 14), 14);
	snprintf(option, sizeof(option), "type=11,value=a,,b,path=%s,value=c=d", path);
	assert_int_equal(parse(&c, &f, &err,
			       (const char *const[]){"type=0,vendor=V,version=1,date=01/02/"
						     "2003,release=4.250,uefi=off",
						     "type=1,serial=ds=nocloud;;s=x,uuid="
						     "00112233-4455-6677-8899-aabbccddeeff",
						     "type=1,product=P,serial=ds=nocloud;;s=x",
						     "type=2,location=L", "asset=A,type=3",
						     "type=4,sock_pfx=S,max-speed=4000,part=Q",
						     "type=17,loc_pfx=B,bank=K,speed=5600",
						     option, "type=11,value=last", NULL}),
			 0);
	assert_string_equal(f.text[SMBIOS_FW_VENDOR], "V");
	assert_string_equal(f.text[SMBIOS_FW_DATE], "01/02/2003");
	assert_true(f.has_release && f.not_uefi);
	assert_int_equal(f.release[0], 4);
	assert_int_equal(f.release[1], 250);
	assert_string_equal(f.text[SMBIOS_SYS_SERIAL], "ds=nocloud;;s=x");
	assert_string_equal(f.text[SMBIOS_SYS_PRODUCT], "P");
	assert_null(f.text[SMBIOS_SYS_FAMILY]);
	assert_string_equal(f.text[SMBIOS_BOARD_LOCATION], "L");
	assert_string_equal(f.text[SMBIOS_CHASSIS_ASSET], "A");
	assert_string_equal(f.text[SMBIOS_CPU_SOCKET], "S");
	assert_string_equal(f.text[SMBIOS_CPU_PART], "Q");
	assert_int_equal(f.number[SMBIOS_CPU_MAX_SPEED], 4000);
	assert_int_equal(f.number[SMBIOS_CPU_SPEED], 0);
	assert_string_equal(f.text[SMBIOS_DIMM_BANK], "K");
	assert_int_equal(f.number[SMBIOS_DIMM_SPEED], 5600);
	assert_int_equal(f.noem, 4);
	assert_string_equal(f.oem[0], "a,b");
	assert_string_equal(f.oem[1], "line 1\nline 2\n");
	assert_string_equal(f.oem[2], "c=d");
	assert_string_equal(f.oem[3], "last");
	assert_int_equal(f.sockets, 2);
	assert_int_equal(f.cores, 6);
	assert_int_equal(f.threads, 12);
	done(&c, &f);

	/* files that are no text */
	assert_int_equal(write(fd, "", 1), 1);
	assert_int_equal(parse(&c, &f, &err, (const char *const[]){option, NULL}), -EINVAL);
	assert_non_null(strstr(err.msg, "NUL"));
	done(&c, &f);
	assert_int_equal(ftruncate(fd, SMBIOS_MAX_TEXTS + 1), 0);
	assert_int_equal(parse(&c, &f, &err, (const char *const[]){option, NULL}), -EINVAL);
	assert_non_null(strstr(err.msg, "60 KiB"));
	done(&c, &f);
	close(fd);
	unlink(path);
	assert_int_equal(parse(&c, &f, &err, (const char *const[]){option, NULL}), -ENOENT);
	assert_non_null(strstr(err.msg, path));
	done(&c, &f);
}

static void test_refusals(void **state)
{
	static const struct {
		const char *first, *second, *names;
	} bad[] = {
		{"vendor=x", NULL, "type=N"},
		{"type=x", NULL, "type=N"},
		{"type=8,internal_reference=x", NULL, "type=8"},
		{"type=127", NULL, "type=127"},
		{"file=smbios.bin", NULL, "file=smbios.bin"},
		{"type=0,colour=red", NULL, "colour"},
		{"type=0,release=1", NULL, "release=1"},
		{"type=0,release=1.256", NULL, "release=1.256"},
		{"type=0,release=1.2x", NULL, "release=1.2x"},
		{"type=0,uefi=maybe", NULL, "uefi=maybe"},
		{"type=2,sku=x", NULL, "sku"}, /* a key of another type */
		{"type=1,serial=a", "type=1,serial=b", "serial is given twice"},
		{"type=4,max-speed=1", "type=4,max-speed=2", "max-speed is given twice"},
		{"type=4,max-speed=0", NULL, "max-speed=0"},
		{"type=4,max-speed=65536", NULL, "max-speed=65536"},
		{"type=17,speed=fast", NULL, "speed=fast"},
		{"type=11,value=", NULL, "value="},
		{"type=11,path=/", NULL, "path=/"},
		{"type=11,text=x", NULL, "text"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct smbios_facts f;
		struct vm_config c;
		struct err err = {0};

		assert_true(parse(&c, &f, &err,
				  (const char *const[]){bad[i].first, bad[i].second, NULL}) <
			    0);
		if (!strstr(err.msg, bad[i].names) || !strstr(err.msg, "-smbios")) {
			fail_msg("%s: '%s' lacks '%s'", bad[i].first, err.msg, bad[i].names);
		}
		done(&c, &f);
	}
}

static void test_many(void **state)
{
	struct smbios_facts f;
	struct vm_config c;
	struct err err = {0};
	const char *text[SMBIOS_MAX_OEM + 2];

	for (unsigned i = 0; i < ARRAY_SIZE(text); i++) {
		text[i] = "type=11,value=x";
	}
	text[SMBIOS_MAX_OEM + 1] = NULL;
	assert_int_equal(parse(&c, &f, &err, text), -E2BIG);
	assert_non_null(strstr(err.msg, "255"));
	done(&c, &f);
	text[SMBIOS_MAX_OEM] = NULL;
	assert_int_equal(parse(&c, &f, &err, text), 0);
	assert_int_equal(f.noem, SMBIOS_MAX_OEM);
	done(&c, &f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
