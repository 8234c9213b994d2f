/*
 * SMBIOS: the structures walked by the rules of the specification, and read by dmidecode when it
 * is there.
 */
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

#include "fakes/fakes.h"
#include "firmware/smbios.h"
#include "spec/smbios.h"

struct table {
	const uint8_t *p[512]; /* structures in order */
	unsigned n;
};

static void anchor_check(const uint8_t *a, uint64_t addr, size_t len)
{
	struct smbios_entry_point e;
	uint8_t sum = 0;

	memcpy(&e, a, sizeof(e));
	for (size_t i = 0; i < sizeof(e); i++) {
		sum = (uint8_t)(sum + a[i]);
	}
	assert_int_equal(sum, 0);
	assert_memory_equal(e.anchor, "_SM3_", 5);
	assert_int_equal(e.length, 24);
	assert_int_equal(e.major, 3);
	assert_int_equal(le32_get(e.table_max_size), len);
	assert_int_equal(le64_get(e.table_address), addr);
}

/* Handles are unique, strings are as many as the fields name, 127 is the end. */
static struct table walk(const uint8_t *data, size_t len)
{
	struct table t = {0};
	size_t at = 0;

	for (;;) {
		struct smbios_header h;

		assert_true(at + sizeof(h) <= len);
		memcpy(&h, data + at, sizeof(h));
		assert_true(h.length >= 4 && at + h.length + 2 <= len);
		for (unsigned i = 0; i < t.n; i++) {
			assert_memory_not_equal(t.p[i] + 2, data + at + 2, 2);
		}
		assert_true(t.n < ARRAY_SIZE(t.p));
		t.p[t.n++] = data + at;
		at += h.length;
		while (data[at] || data[at + 1]) {
			at++;
			assert_true(at + 1 < len);
		}
		at += 2;
		if (h.type == 127) {
			break;
		}
	}
	assert_int_equal(at, len);
	return t;
}

static const uint8_t *find(const struct table *t, uint8_t type, unsigned nth)
{
	for (unsigned i = 0; i < t->n; i++) {
		if (t->p[i][0] == type && !nth--) {
			return t->p[i];
		}
	}
	return NULL;
}

static const char *string(const uint8_t *st, uint8_t n)
{
	const char *s = (const char *)st + st[1];

	assert_true(n > 0);
	while (--n) {
		assert_true(*s);
		s += strlen(s) + 1;
	}
	assert_true(*s);
	return s;
}

static struct smbios_facts facts(void)
{
	return (struct smbios_facts){
		.product = "virt-1.0",
		.name = "first \"guest\"",
		.has_uuid = true,
		.uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb,
			 0xcc, 0xdd, 0xee, 0xff},
		.sockets = 2,
		.cores = 3,
		.threads = 6,
		.ram_low = 2 * GiB,
		.ram_high = 4 * GiB,
	};
}

static void test_structures(void **state)
{
	static const uint8_t uuid[] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
				       0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
	struct smbios_facts f = facts();
	struct smbios s;
	struct table t;
	struct smbios_type1 t1;
	struct smbios_type3 t3;
	struct smbios_type4 t4;
	struct smbios_type16 t16;
	struct smbios_type17 t17;
	struct smbios_type19 t19;

	assert_int_equal(smbios_build(&s, &f, NULL), 0);
	anchor_check(s.anchor, 0, s.len);
	t = walk(s.data, s.len);
	assert_non_null(find(&t, 0, 0));
	assert_non_null(find(&t, 32, 0));

	memcpy(&t1, find(&t, 1, 0), sizeof(t1));
	assert_string_equal(string(find(&t, 1, 0), t1.product), "virt-1.0");
	assert_memory_equal(t1.uuid, uuid, 16);
	memcpy(&t3, find(&t, 3, 0), sizeof(t3));
	assert_string_equal(string(find(&t, 3, 0), t3.asset_tag), "first \"guest\"");
	memcpy(&t4, find(&t, 4, 0), sizeof(t4));
	assert_int_equal(t4.core_count, 3);
	assert_int_equal(t4.thread_count, 6);
	assert_string_equal(string(find(&t, 4, 1), t4.socket), "CPU 1");
	assert_null(find(&t, 4, 2));
	memcpy(&t16, find(&t, 16, 0), sizeof(t16));
	assert_int_equal(le32_get(t16.max_capacity), 6 * MiB);
	assert_int_equal(le16_get(t16.devices), 1);
	memcpy(&t17, find(&t, 17, 0), sizeof(t17));
	assert_int_equal(le16_get(t17.size), 6144);
	memcpy(&t19, find(&t, 19, 0), sizeof(t19));
	assert_int_equal(le32_get(t19.end), 2 * MiB - 1);
	memcpy(&t19, find(&t, 19, 1), sizeof(t19));
	assert_int_equal(le32_get(t19.start), 4 * MiB);
	assert_int_equal(le32_get(t19.end), 8 * MiB - 1);
	smbios_free(&s);
}

static void test_limits(void **state)
{
	struct smbios_facts f = facts();
	struct smbios s;
	struct table t;
	struct smbios_type3 t3;
	struct smbios_type4 t4;
	struct smbios_type17 t17;
	struct smbios_type19 t19;
	char name[200];
	uint64_t total = 0;

	/* names: long, not ASCII, empty, none */
	memset(name, 'x', sizeof(name));
	name[0] = '\n';
	name[1] = (char)0xc3;
	name[199] = 0;
	f.name = name;
	f.has_uuid = false;
	f.cores = f.threads = 1000;
	f.ram_high = 5000 * GiB + 3 * MiB;
	assert_int_equal(smbios_build(&s, &f, NULL), 0);
	t = walk(s.data, s.len);
	memcpy(&t4, find(&t, 4, 0), sizeof(t4));
	assert_int_equal(t4.core_count, 255);
	assert_int_equal(t4.thread_count, 255);
	assert_int_equal(le16_get(t4.core_count2), 1000);
	assert_int_equal(le16_get(t4.thread_count2), 1000);
	memcpy(&t3, find(&t, 3, 0), sizeof(t3));
	assert_int_equal(strlen(string(find(&t, 3, 0), t3.asset_tag)), 64);
	assert_memory_equal(string(find(&t, 3, 0), t3.asset_tag), "??xxx", 5);
	for (unsigned i = 0; find(&t, 17, i); i++) {
		memcpy(&t17, find(&t, 17, i), sizeof(t17));
		assert_int_equal(le16_get(t17.size) == 0x7fff,
				 le32_get(t17.extended_size) != 0);
		total += le16_get(t17.size) == 0x7fff ? le32_get(t17.extended_size)
						      : le16_get(t17.size);
	}
	assert_int_equal(total * MiB, f.ram_low + f.ram_high);
	memcpy(&t19, find(&t, 19, 1), sizeof(t19));
	assert_int_equal(le32_get(t19.start), UINT32_MAX);
	assert_int_equal(le64_get(t19.end_ext), 4 * GiB + f.ram_high - 1);
	smbios_free(&s);

	f.name = "";
	f.cores = f.threads = 1;
	f.ram_low = 2 * MiB + 4096;
	f.ram_high = 0;
	assert_int_equal(smbios_build(&s, &f, NULL), 0);
	t = walk(s.data, s.len);
	memcpy(&t3, find(&t, 3, 0), sizeof(t3));
	assert_int_equal(t3.asset_tag, 0);
	memcpy(&t17, find(&t, 17, 0), sizeof(t17));
	assert_int_equal(le16_get(t17.size), 0x8000 | 2052);
	assert_null(find(&t, 19, 1));
	smbios_free(&s);
}

/* What -smbios says, one text a structure where the numbers of strings could be mixed up. */
static void test_texts(void **state)
{
	struct smbios_facts f = facts();
	char *oem[] = {(char *)"one", (char *)"\xc3\xa4\n two", (char *)"three"};
	struct smbios_type0 t0;
	struct smbios_type1 t1;
	struct smbios_type2 t2;
	struct smbios_type3 t3;
	struct smbios_type4 t4;
	struct smbios_type17 t17;
	struct smbios s;
	struct table t;

	/* nothing said: no baseboard, no OEM strings */
	assert_int_equal(smbios_build(&s, &f, NULL), 0);
	t = walk(s.data, s.len);
	assert_null(find(&t, 2, 0));
	assert_null(find(&t, 11, 0));
	memcpy(&t0, find(&t, 0, 0), sizeof(t0));
	assert_int_equal(t0.characteristics_ext[1], 0x18);
	assert_int_equal(t0.major, 0xff);
	smbios_free(&s);

	f.sockets = 2;
	f.not_uefi = f.has_release = true;
	f.release[0] = 3;
	f.release[1] = 9;
	f.text[SMBIOS_FW_DATE] = "11/12/2013";
	f.text[SMBIOS_SYS_SERIAL] = "ds=nocloud;s=http://10.0.0.1/";
	f.text[SMBIOS_SYS_VERSION] = ""; /* none, and the numbers behind it still fit */
	f.text[SMBIOS_SYS_SKU] = "sku";
	f.text[SMBIOS_BOARD_LOCATION] = "here";
	f.text[SMBIOS_CHASSIS_ASSET] = "tag";
	f.text[SMBIOS_CHASSIS_SKU] = "csku";
	f.text[SMBIOS_CPU_SOCKET] = "P";
	f.text[SMBIOS_CPU_PART] = "part";
	f.number[SMBIOS_CPU_SPEED] = 2500;
	f.text[SMBIOS_DIMM_PART] = "dpart";
	f.number[SMBIOS_DIMM_SPEED] = 3200;
	f.oem = oem;
	f.noem = ARRAY_SIZE(oem);
	assert_int_equal(smbios_build(&s, &f, NULL), 0);
	t = walk(s.data, s.len);
	memcpy(&t0, find(&t, 0, 0), sizeof(t0));
	assert_string_equal(string(find(&t, 0, 0), t0.release_date), "11/12/2013");
	assert_int_equal(t0.characteristics_ext[1], 0x10);
	assert_int_equal(t0.major, 3);
	assert_int_equal(t0.minor, 9);
	memcpy(&t1, find(&t, 1, 0), sizeof(t1));
	assert_int_equal(t1.version, 0);
	assert_string_equal(string(find(&t, 1, 0), t1.serial), f.text[SMBIOS_SYS_SERIAL]);
	assert_string_equal(string(find(&t, 1, 0), t1.sku), "sku");
	assert_string_equal(string(find(&t, 1, 0), t1.family), "Virtual Machine");
	memcpy(&t2, find(&t, 2, 0), sizeof(t2));
	assert_string_equal(string(find(&t, 2, 0), t2.location), "here");
	assert_int_equal(t2.serial, 0);
	memcpy(&t3, find(&t, 3, 0), sizeof(t3));
	assert_memory_equal(find(&t, 3, 0) + 2, &t2.chassis, 2);
	assert_string_equal(string(find(&t, 3, 0), t3.asset_tag), "tag"); /* before -name */
	assert_string_equal(string(find(&t, 3, 0), t3.sku), "csku");
	memcpy(&t4, find(&t, 4, 1), sizeof(t4)); /* the second socket */
	assert_string_equal(string(find(&t, 4, 1), t4.socket), "P 1");
	assert_string_equal(string(find(&t, 4, 1), t4.part_number), "part");
	assert_int_equal(t4.core_count, 3);
	assert_int_equal(t4.thread_count, 6);
	assert_int_equal(le16_get(t4.current_speed), 2500);
	assert_int_equal(le16_get(t4.characteristics), 0x1c); /* 64 bit, cores, threads */
	assert_null(find(&t, 4, 2));
	memcpy(&t17, find(&t, 17, 0), sizeof(t17));
	assert_string_equal(string(find(&t, 17, 0), t17.part_number), "dpart");
	assert_int_equal(le16_get(t17.speed), 3200);
	assert_int_equal(find(&t, 11, 0)[4], 3);
	assert_string_equal(string(find(&t, 11, 0), 2), "\xc3\xa4\n two");
	assert_string_equal(string(find(&t, 11, 0), 3), "three");
	smbios_free(&s);
}

static void test_long_texts(void **state)
{
	struct smbios_facts f = facts();
	char *text = malloc(SMBIOS_MAX_TEXTS + 1), *oem[] = {text, (char *)"x"};
	struct fake_vm *fv = fake_vm_new(NULL);
	struct err err = {0};
	struct smbios s;
	struct table t;

	/* all that a structure takes, in one text */
	memset(text, 'x', SMBIOS_MAX_TEXTS);
	text[SMBIOS_MAX_TEXTS - 1] = 0;
	f.oem = oem;
	f.noem = 1;
	assert_int_equal(smbios_build(&s, &f, NULL), 0);
	t = walk(s.data, s.len);
	assert_int_equal(strlen(string(find(&t, 11, 0), 1)), SMBIOS_MAX_TEXTS - 1);
	smbios_free(&s);
	f.noem = 2;
	assert_int_equal(smbios_build(&s, &f, &err), -E2BIG);
	assert_non_null(strstr(err.msg, "-smbios"));
	/* two structures like that are more than fits below 1 MiB */
	f.noem = 1;
	f.text[SMBIOS_SYS_SERIAL] = text + SMBIOS_MAX_TEXTS / 2;
	assert_int_equal(smbios_place(fv->vm.mem, &f, &err), -ENOSPC);
	fake_vm_free(fv);
	free(text);
}

static void test_place(void **state)
{
	struct fake_vm *fv = fake_vm_new(NULL);
	struct smbios_facts f = facts();
	uint8_t anchor[24], *table = malloc(65536);
	struct err err;

	assert_int_equal(smbios_place(fv->vm.mem, &f, &err), 0);
	assert_int_equal(mem_read(fv->vm.mem, 0xf0000, anchor, sizeof(anchor)), 0);
	assert_int_equal(mem_read(fv->vm.mem, 0xf0020, table, 65504), 0);
	anchor_check(anchor, 0xf0020, anchor[12] | anchor[13] << 8);
	walk(table, anchor[12] | (size_t)anchor[13] << 8);
	free(table);
	fake_vm_free(fv);
}

/* Its own reader: dmidecode takes a file with the anchor at 0 and the table behind it. */
static void test_dmidecode(void **state)
{
	struct smbios_facts f = facts();
	char path[] = "/tmp/nemu-smbios-XXXXXX", cmd[128], out[16384];
	struct smbios s;
	FILE *p, *o;
	int fd;
	size_t n;

	if (system("command -v dmidecode >/dev/null") != 0) {
		skip();
	}
	assert_int_equal(smbios_build(&s, &f, NULL), 0);
	smbios_relocate(&s, 32);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	o = fdopen(fd, "w");
	assert_int_equal(fwrite(s.anchor, 1, 24, o), 24);
	assert_int_equal(fwrite("\0\0\0\0\0\0\0\0", 1, 8, o), 8);
	assert_int_equal(fwrite(s.data, 1, s.len, o), s.len);
	fclose(o);
	snprintf(cmd, sizeof(cmd), "dmidecode --from-dump %s 2>&1", path);
	p = popen(cmd, "r");
	n = fread(out, 1, sizeof(out) - 1, p);
	out[n] = 0;
	assert_int_equal(pclose(p), 0);
	unlink(path);
	assert_non_null(strstr(out, "UUID: 00112233-4455-6677-8899-aabbccddeeff"));
	assert_non_null(strstr(out, "Product Name: virt-1.0"));
	assert_non_null(strstr(out, "Size: 6 GB"));
	assert_null(strstr(out, "<OUT OF SPEC>"));
	assert_null(strstr(out, "<BAD INDEX>"));
	assert_null(strstr(out, "broken"));
	smbios_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_structures), cmocka_unit_test(test_limits),
		cmocka_unit_test(test_texts),	   cmocka_unit_test(test_long_texts),
		cmocka_unit_test(test_place),	   cmocka_unit_test(test_dmidecode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
