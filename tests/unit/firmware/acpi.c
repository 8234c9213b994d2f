/*
 * ACPI: the encoder byte by byte; the tables judged by the reference implementation (iasl takes
 * them apart and puts them together again, acpiexec loads them and evaluates every _STA and
 * _CRS); the loader script executed as firmware does; direct placement.
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
#include "firmware/acpi/acpi.h"
#include "firmware/acpi/aml.h"
#include "spec/acpi.h"
#include "spec/platform_x86.h"

static struct acpi_cpu cpus[ACPI_MAX_CPUS];

static struct acpi_facts facts_of(unsigned ncpus, unsigned present)
{
	for (unsigned i = 0; i < ncpus; i++) {
		cpus[i] = (struct acpi_cpu){.apic_id = i, .present = i < present};
	}
	return (struct acpi_facts){
		.cpu = cpus, .ncpus = ncpus, .uart = true, .ecam_base = PLAT_ECAM_BASE};
}

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--) {
		s = (uint8_t)(s + *p++);
	}
	return s;
}

/* --- encoder --- */

static void expect_bytes(struct aml *a, const char *hex)
{
	char got[1024];

	assert_false(a->failed);
	for (size_t i = 0; i < a->len; i++) {
		snprintf(got + 2 * i, 3, "%02x", a->data[i]);
	}
	assert_int_equal(a->len * 2, strlen(hex));
	assert_string_equal(got, hex);
	aml_free(a);
}

static void test_aml(void **state)
{
	struct aml a = {0}, crs = {0};
	size_t outer, inner;

	aml_int(&a, 0);
	aml_int(&a, 1);
	aml_int(&a, 2);
	aml_int(&a, 0x100);
	aml_int(&a, 0x10000);
	aml_int(&a, 0x100000000);
	expect_bytes(&a, "0001"
			 "0a02"
			 "0b0001"
			 "0c00000100"
			 "0e0000000001000000");

	aml_path(&a, "\\_SB.PCI0");
	aml_path(&a, "A");
	aml_path(&a, "\\A.B.C");
	expect_bytes(&a, "5c2e5f53425f50434930"
			 "415f5f5f"
			 "5c2f03415f5f5f425f5f5f435f5f5f");

	/* a package length counts its own bytes */
	outer = aml_scope_begin(&a, "\\_SB");
	inner = aml_device_begin(&a, "C000");
	aml_name_string(&a, "_HID", "AB");
	aml_name_int(&a, "_UID", 1);
	aml_end(&a, inner);
	aml_end(&a, outer);
	expect_bytes(&a, "101c"
			 "5c5f53425f"
			 "5b8214"
			 "43303030"
			 "085f4849440d414200"
			 "085f55494401");

	crs_io(&crs, 0xcf8, 8);
	aml_name_crs(&a, "_CRS", &crs);
	expect_bytes(&a, "085f435253"
			 "11"
			 "0d"
			 "0a0a"
			 "4701f80cf80c0108"
			 "7900");
	aml_free(&crs);
}

/* Each form of the package length at its limits: what is inside must come out as long. */
static void test_aml_pkg_length(void **state)
{
	static const size_t sizes[] = {0,    58,   59,	    60,	     4088,    4089,
				       4090, 4091, 0xffff8, 0xffff9, 0xffffa, 0x100000};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct aml a = {0};
		size_t mark = aml_device_begin(&a, "AAAA");
		size_t len, n;

		aml_zeros(&a, sizes[i]);
		aml_end(&a, mark);
		assert_false(a.failed);
		n = a.data[2] >> 6;
		len = n ? a.data[2] & 0x0f : a.data[2];
		for (size_t k = 0; k < n; k++) {
			len |= (size_t)a.data[3 + k] << (4 + 8 * k);
		}
		assert_int_equal(len, 1 + n + 4 + sizes[i]);
		assert_int_equal(a.len, 2 + len);
		assert_memory_equal(a.data + 3 + n, "AAAA", 4);
		aml_free(&a);
	}
}

/* --- tables --- */

static void check_tables(const struct acpi_tables *t)
{
	for (unsigned i = 0; i < t->ntables; i++) {
		const struct acpi_table_ref *r = &t->table[i];
		struct acpi_header h;

		assert_true(r->off % 16 == 0 || i == 0);
		assert_true(r->off + r->len <= t->len);
		memcpy(&h, t->data + r->off, sizeof(h));
		assert_memory_equal(h.signature, r->sig, 4);
		assert_int_equal(le32_get(h.length), r->len);
		assert_memory_equal(h.oem_id, "NEMU\0\0", 6);
		assert_memory_equal(h.oem_table_id, "NEMUVIRT", 8);
		assert_int_equal(sum(t->data + r->off, r->len), 0);
	}
}

static void test_tables(void **state)
{
	struct acpi_facts f = facts_of(4, 2);
	struct acpi_tables t, u;
	const struct acpi_table_ref *r;
	struct acpi_fadt fadt;
	struct acpi_madt_lapic lapic;
	struct acpi_mcfg_allocation mcfg;
	uint64_t entry;

	f.last_bus = 3;
	f.mem64_base = 0xe000000000;
	f.mem64_end = 0xe000200000;
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	check_tables(&t);

	r = acpi_find(&t, "FACP");
	memcpy(&fadt, t.data + r->off, sizeof(fadt));
	assert_int_equal(le64_get(fadt.x_dsdt), acpi_find(&t, "DSDT")->off);
	assert_int_equal(le64_get(fadt.reset_reg.address), 0xcf9);
	assert_int_equal(fadt.reset_value, 6);
	assert_int_equal(le64_get(fadt.sleep_control_reg.address), 0x605);
	assert_true(le32_get(fadt.flags) & ACPI_FADT_HW_REDUCED);
	assert_true(le32_get(fadt.flags) & ACPI_FADT_RESET_REG_SUP);
	assert_int_equal(le32_get(fadt.firmware_ctrl), 0);

	r = acpi_find(&t, "APIC");
	memcpy(&lapic, t.data + r->off + 44 + 8, sizeof(lapic));
	assert_int_equal(lapic.apic_id, 1);
	assert_int_equal(le32_get(lapic.flags), ACPI_MADT_ENABLED);
	memcpy(&lapic, t.data + r->off + 44 + 16, sizeof(lapic));
	assert_int_equal(le32_get(lapic.flags), ACPI_MADT_ONLINE_CAPABLE);

	r = acpi_find(&t, "MCFG");
	memcpy(&mcfg, t.data + r->off + 44, sizeof(mcfg));
	assert_int_equal(le64_get(mcfg.base), PLAT_ECAM_BASE);
	assert_int_equal(mcfg.end_bus, 3);

	/* equal facts, equal bytes */
	assert_int_equal(acpi_build(&u, &f, NULL), 0);
	assert_int_equal(u.len, t.len);
	assert_memory_equal(u.data, t.data, t.len);
	acpi_free(&u);

	acpi_relocate(&t, 0x7fff0000);
	check_tables(&t);
	r = acpi_find(&t, "XSDT");
	assert_int_equal(r->len, 36 + 4 * 8);
	memcpy(&entry, t.data + r->off + 36, 8);
	assert_int_equal(entry, 0x7fff0000 + acpi_find(&t, "FACP")->off);
	acpi_relocate(&t, 0x1000); /* not cumulative */
	memcpy(&entry, t.data + r->off + 36, 8);
	assert_int_equal(entry, 0x1000 + acpi_find(&t, "FACP")->off);
	acpi_free(&t);
}

static void test_many_cpus(void **state)
{
	struct acpi_facts f = facts_of(ACPI_MAX_CPUS, ACPI_MAX_CPUS);
	struct acpi_tables t;
	struct err err;
	const struct acpi_table_ref *r;
	struct acpi_madt_x2apic x;
	struct acpi_madt_lapic_nmi nmi;
	struct acpi_madt_x2apic_nmi nmi2;

	assert_int_equal(acpi_build(&t, &f, &err), 0);
	check_tables(&t);
	r = acpi_find(&t, "APIC");
	memcpy(&x, t.data + r->off + 44 + 255 * 8, sizeof(x));
	assert_int_equal(x.type, ACPI_MADT_X2APIC);
	assert_int_equal(le32_get(x.x2apic_id), 255);
	assert_int_equal(le32_get(x.processor_uid), 255);
	/* the last two: NMIs of the one kind of processors and of the other */
	memcpy(&nmi, t.data + r->off + r->len - sizeof(nmi) - sizeof(nmi2), sizeof(nmi));
	assert_int_equal(nmi.type, ACPI_MADT_LAPIC_NMI);
	assert_int_equal(nmi.processor_uid, 0xff);
	memcpy(&nmi2, t.data + r->off + r->len - sizeof(nmi2), sizeof(nmi2));
	assert_int_equal(nmi2.type, ACPI_MADT_X2APIC_NMI);
	assert_int_equal(le32_get(nmi2.processor_uid), UINT32_MAX);
	assert_int_equal(nmi2.lint, 1);
	acpi_free(&t);
	/* few processors with a gap: the id decides, not the number */
	f.ncpus = 2;
	cpus[1].apic_id = 399;
	assert_int_equal(acpi_build(&t, &f, &err), 0);
	r = acpi_find(&t, "APIC");
	memcpy(&x, t.data + r->off + 44 + 8, sizeof(x));
	assert_int_equal(x.type, ACPI_MADT_X2APIC);
	assert_int_equal(le32_get(x.x2apic_id), 399);
	assert_int_equal(le32_get(x.processor_uid), 1);
	acpi_free(&t);
	f.ncpus = ACPI_MAX_CPUS + 1;
	assert_int_equal(acpi_build(&t, &f, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "4097 processors"));
}

/* --- the reference implementation --- */

static char *run(const char *dir, const char *cmd)
{
	static char out[1 << 20];
	char line[1024];
	FILE *p;
	size_t n;
	int rc;

	snprintf(line, sizeof(line), "cd '%s' && { %s; } 2>&1", dir, cmd);
	p = popen(line, "r");
	assert_non_null(p);
	n = fread(out, 1, sizeof(out) - 1, p);
	out[n] = 0;
	rc = pclose(p);
	if (rc) {
		fail_msg("%s: status %d\n%s", cmd, rc, out);
	}
	return out;
}

#define ACPIEXEC "acpiexec DSDT.dat FACP.dat SSDT.dat APIC.dat MCFG.dat"

/* What the system asks for and gets; bytes of the three words of the answer. */
static void osc_check(const char *dir)
{
	static const struct {
		const char *uuid, *words, *answer;
	} cases[] = {
		/* everything asked, SHPC, LTR and DPC refused */
		{"5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66",
		 "00 00 00 00 1F 01 00 00 BF 00 00 00", "10 00 00 00 1F 01 00 00 1D 00 00 00"},
		/* only what there is: granted as it is */
		{"5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66",
		 "00 00 00 00 1F 01 00 00 15 00 00 00", "00 00 00 00 1F 01 00 00 15 00 00 00"},
		/* not PCI's UUID */
		{"00 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66",
		 "00 00 00 00 1F 01 00 00 15 00 00 00", "04 00 00 00 1F 01 00 00 15 00 00 00"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char cmd[512], *out;

		snprintf(cmd, sizeof(cmd),
			 "printf 'evaluate \\\\_SB.PCI0._OSC (%s) 1 3 (%s)\nquit\n' "
			 "| " ACPIEXEC,
			 cases[i].uuid, cases[i].words);
		out = run(dir, cmd);
		if (!strstr(out, cases[i].answer)) {
			fail_msg("wanted %s: %s", cases[i].answer, out);
		}
	}
}

static void reference_check(const struct acpi_facts *f)
{
	char dir[] = "/tmp/nemu-acpi-XXXXXX";
	struct acpi_tables t;
	char path[128], cmd[256], *out;
	unsigned objects = 0;
	FILE *script;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(acpi_build(&t, f, NULL), 0);
	acpi_relocate(&t, 0xe0040);
	for (unsigned i = 0; i < t.ntables; i++) {
		const struct acpi_table_ref *r = &t.table[i];
		FILE *o;

		snprintf(path, sizeof(path), "%s/%s.dat", dir, r->sig);
		o = fopen(path, "w");
		assert_non_null(o);
		assert_int_equal(fwrite(t.data + r->off, 1, r->len, o), r->len);
		fclose(o);
	}
	for (unsigned i = 0; i < t.ntables; i++) {
		const char *sig = t.table[i].sig;

		snprintf(cmd, sizeof(cmd), "iasl -d %s.dat", sig);
		out = run(dir, cmd);
		assert_null(strstr(out, "Error"));
		assert_null(strstr(out, "Warning"));
		snprintf(cmd, sizeof(cmd), "iasl -we -p again_%s %s.dsl", sig, sig);
		out = run(dir, cmd);
		if (!strstr(out, "0 Errors, 0 Warnings, 0 Remarks")) {
			fail_msg("%s", out);
		}
	}
	/* data tables come out of the compiler with the same content */
	run(dir, "for t in FACP APIC MCFG; do cmp -i 36 $t.dat again_$t.aml; done");

	out = run(dir, "printf 'find _STA\nfind _CRS\nquit\n' | " ACPIEXEC);
	if (strstr(out, "ACPI Error") || strstr(out, "ACPI Warning") || strstr(out, "AE_")) {
		fail_msg("%s", out);
	}
	snprintf(path, sizeof(path), "%s/evaluate", dir);
	script = fopen(path, "w");
	assert_non_null(script);
	for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n")) {
		char object[64];

		if (sscanf(line, " %63s", object) == 1 && !strncmp(object, "\\_SB", 4) &&
		    (strstr(object, "._STA") || strstr(object, "._CRS"))) {
			fprintf(script, "evaluate %s\n", object);
			objects++;
		}
	}
	fprintf(script, "quit\n");
	fclose(script);
	/* _CRS of MBRD, FWCF, RTC0, COM1, GED0 and PCI0, _STA of FWCF at least */
	assert_true(objects >= 7);
	out = run(dir, ACPIEXEC " < evaluate");
	if (strstr(out, "AE_") || strstr(out, "ACPI Error") || strstr(out, "ACPI Warning")) {
		fail_msg("%s", out);
	}
	for (char *at = out; (at = strstr(at, "returned object")); at++) {
		objects--;
	}
	assert_int_equal(objects, 0);
	osc_check(dir);
	acpi_free(&t);
	snprintf(cmd, sizeof(cmd), "rm -r '%s'", dir);
	run("/", cmd);
}

static void test_reference(void **state)
{
	struct acpi_facts f = facts_of(6, 4);

	f.mem64_base = 0x380000000000;
	f.mem64_end = 0x380100000000;
	reference_check(&f);
	f = facts_of(300, 300);
	f.uart = false;
	reference_check(&f);
}

/* The ASL repeats numbers of the platform contract. */
static void test_asl_addresses(void **state)
{
	struct acpi_facts f = facts_of(1, 1);
	struct acpi_tables t;
	const struct acpi_table_ref *r;
	const uint8_t ecam[] = {0x86, 9, 0, 1, 0, 0, 0, 0xb0, 0, 0, 0, 0x10};
	const uint8_t regs[] = {0x86, 9, 0, 1, 0, 0, 0xd0, 0xfe, 0, 0x10, 0, 0};
	const uint8_t pm[] = {0x47, 1, 0x00, 0x06, 0x00, 0x06, 1, 0x0c};
	const uint8_t fw[] = {0x47, 1, 0x10, 0x05, 0x10, 0x05, 1, 0x0c};
	const uint8_t rtc[] = {0x47, 1, 0x70, 0x00, 0x70, 0x00, 1, 0x02};
	const uint8_t com[] = {0x47, 1, 0xf8, 0x03, 0xf8, 0x03, 1, 0x08, 0x89, 6, 0, 3, 1, 4};
	const uint8_t ged[] = {0x89, 6, 0, 3, 1, 0x10};
	const uint8_t sel[] = {'G', 'R', 'E', 'G', 0, 0x0c, 0, 0, 0xd0, 0xfe};

	assert_int_equal(PLAT_ECAM_BASE, 0xb0000000);
	assert_int_equal(PLAT_ECAM_SIZE, 0x10000000);
	assert_int_equal(PLAT_REGS_BASE, 0xfed00000);
	assert_int_equal(PLAT_REGS_SIZE, 0x1000);
	assert_int_equal(PLAT_GED_BASE, 0xfed00000);
	assert_int_equal(PLAT_GED_POWER, 0x10);
	assert_int_equal(PLAT_PM_PORT, 0x600);
	assert_int_equal(PLAT_PM_LEN, 12);
	assert_int_equal(PLAT_FW_CFG_PORT, 0x510);
	assert_int_equal(PLAT_FW_CFG_LEN, 12);
	assert_int_equal(PLAT_RTC_PORT, 0x70);
	assert_int_equal(PLAT_UART_PORT, 0x3f8);
	assert_int_equal(PLAT_GSI_UART, 4);
	assert_int_equal(PLAT_GSI_GED, 16);
	assert_int_equal(PLAT_S5_TYPE, 0);
	assert_int_equal(acpi_build(&t, &f, NULL), 0);
	r = acpi_find(&t, "DSDT");
#define HAS(x) assert_non_null(memmem(t.data + r->off, r->len, x, sizeof(x)))
	HAS(ecam);
	HAS(regs);
	HAS(pm);
	HAS(fw);
	HAS(rtc);
	HAS(com);
	HAS(ged);
	HAS(sel);
#undef HAS
	acpi_free(&t);
}

/* --- the loader script, executed --- */

struct guest_file {
	char name[56];
	uint8_t data[65536];
	uint32_t len;
	uint64_t addr;
};

struct script_env {
	struct fake_vm *fv;
	struct acpi_facts facts;
	unsigned asked;
	struct guest_file file[3];
	unsigned nfiles;
};

static void env_facts(void *opaque, struct acpi_facts *f)
{
	struct script_env *e = opaque;

	e->asked++;
	*f = e->facts;
}

/* Through the ports, as firmware does it. */
static uint32_t fetch(struct fake_vm *fv, const char *name, void *buf, size_t max)
{
	uint32_t count = 0;

	fake_pio_write(fv, 0x510, 0x19, 2);
	for (int i = 0; i < 4; i++) {
		count = count << 8 | (uint8_t)fake_pio_read(fv, 0x511, 1);
	}
	for (uint32_t i = 0; i < count; i++) {
		uint8_t e[64];
		uint32_t size;

		for (int k = 0; k < 64; k++) {
			e[k] = (uint8_t)fake_pio_read(fv, 0x511, 1);
		}
		if (strcmp((char *)e + 8, name)) {
			continue;
		}
		size = (uint32_t)e[0] << 24 | e[1] << 16 | e[2] << 8 | e[3];
		assert_true(size <= max);
		fake_pio_write(fv, 0x510, e[4] << 8 | e[5], 2);
		for (uint32_t k = 0; k < size; k++) {
			((uint8_t *)buf)[k] = (uint8_t)fake_pio_read(fv, 0x511, 1);
		}
		return size;
	}
	fail_msg("no file %s", name);
	return 0;
}

static struct guest_file *env_file(struct script_env *e, const char *name)
{
	for (unsigned i = 0; i < e->nfiles; i++) {
		if (!strcmp(e->file[i].name, name)) {
			return &e->file[i];
		}
	}
	fail_msg("script names %s before it allocates it", name);
	return NULL;
}

static void script_run(struct script_env *e)
{
	static uint8_t script[65536];
	uint32_t len = fetch(e->fv, "etc/table-loader", script, sizeof(script));

	assert_int_equal(len % 128, 0);
	e->nfiles = 0;
	for (uint32_t at = 0; at < len; at += 128) {
		struct loader_entry s;
		struct guest_file *f;

		memcpy(&s, script + at, sizeof(s));
		switch (le32_get(s.command)) {
		case LOADER_ALLOCATE:
			assert_true(e->nfiles < 3);
			f = &e->file[e->nfiles];
			f->len = fetch(e->fv, s.alloc.file, f->data, sizeof(f->data));
			strcpy(f->name, s.alloc.file);
			f->addr = 0x7f000000 + e->nfiles++ * 0x100000;
			break;
		case LOADER_ADD_POINTER: {
			uint64_t v = 0, off = le32_get(s.pointer.offset);

			f = env_file(e, s.pointer.pointer_file);
			assert_true(off + s.pointer.size <= f->len);
			memcpy(&v, f->data + off, s.pointer.size);
			assert_true(v < env_file(e, s.pointer.pointee_file)->len);
			v += env_file(e, s.pointer.pointee_file)->addr;
			memcpy(f->data + off, &v, s.pointer.size);
			break;
		}
		case LOADER_ADD_CHECKSUM: {
			uint32_t start = le32_get(s.checksum.start);
			uint32_t n = le32_get(s.checksum.length);

			f = env_file(e, s.checksum.file);
			assert_true(start + n <= f->len);
			assert_int_equal(f->data[le32_get(s.checksum.result_offset)], 0);
			f->data[le32_get(s.checksum.result_offset)] =
				(uint8_t)-sum(f->data + start, n);
			break;
		}
		default:
			fail_msg("command %u", le32_get(s.command));
		}
	}
}

static void linked_check(struct script_env *e)
{
	struct guest_file *tables = env_file(e, "etc/acpi/tables");
	struct guest_file *rsdp_file = env_file(e, "etc/acpi/rsdp");
	struct acpi_rsdp rsdp;
	struct acpi_header h;
	uint64_t xsdt, n;
	bool fadt_seen = false;

	memcpy(&rsdp, rsdp_file->data, sizeof(rsdp));
	assert_memory_equal(rsdp.signature, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp_file->data, 20), 0);
	assert_int_equal(sum(rsdp_file->data, 36), 0);
	xsdt = le64_get(rsdp.xsdt_address) - tables->addr;
	memcpy(&h, tables->data + xsdt, sizeof(h));
	assert_memory_equal(h.signature, "XSDT", 4);
	assert_int_equal(sum(tables->data + xsdt, le32_get(h.length)), 0);
	n = (le32_get(h.length) - 36) / 8;
	assert_int_equal(n, 4);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t addr;
		struct acpi_fadt fadt;

		memcpy(&addr, tables->data + xsdt + 36 + 8 * i, 8);
		addr -= tables->addr;
		assert_true(addr < tables->len);
		memcpy(&h, tables->data + addr, sizeof(h));
		assert_int_equal(sum(tables->data + addr, le32_get(h.length)), 0);
		if (!memcmp(h.signature, "FACP", 4)) {
			fadt_seen = true;
			memcpy(&fadt, tables->data + addr, sizeof(fadt));
			addr = le64_get(fadt.x_dsdt) - tables->addr;
			memcpy(&h, tables->data + addr, sizeof(h));
			assert_memory_equal(h.signature, "DSDT", 4);
			assert_int_equal(sum(tables->data + addr, le32_get(h.length)), 0);
		}
	}
	assert_true(fadt_seen);
}

static void test_loader(void **state)
{
	struct script_env *e = calloc(1, sizeof(*e));
	struct acpi_loader *l;
	struct fw_cfg *fw;
	struct err err;
	const uint8_t window[] = {0x8a, 0x2b, 0};
	/* its last bytes: segment, first and last bus, reserved */
	const uint8_t mcfg[] = {0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0};

	e->fv = fake_vm_new(NULL);
	e->facts = facts_of(2, 2);
	assert_int_equal(fw_cfg_new(&e->fv->vm, 0x510, &fw, &err), 0);
	assert_int_equal(acpi_loader_new(fw, env_facts, e, &l, &err), 0);
	script_run(e);
	linked_check(e);
	assert_null(memmem(e->file[0].data, e->file[0].len, window, sizeof(window)));

	/* the firmware assigned BARs: what it fetches now has the window */
	e->facts.mem64_base = 0xe000000000;
	e->facts.mem64_end = 0xe000100000;
	script_run(e);
	linked_check(e);
	assert_non_null(memmem(e->file[0].data, e->file[0].len, window, sizeof(window)));

	/* and the bus numbers, with which nothing else may change */
	e->facts.last_bus = 5;
	script_run(e);
	linked_check(e);
	assert_non_null(memmem(e->file[0].data, e->file[0].len, mcfg, sizeof(mcfg)));

	/* facts that cannot be described: the tables before them stay */
	e->facts.ncpus = ACPI_MAX_CPUS + 1;
	script_run(e);
	linked_check(e);
	fake_vm_free(e->fv);
	acpi_loader_free(l);
	free(e);
}

/* --- direct boot --- */

static void placed_check(struct fake_vm *fv, const struct acpi_placed *p)
{
	struct acpi_rsdp rsdp;
	struct acpi_header h;
	static uint8_t table[1 << 20];
	uint64_t xsdt;

	assert_int_equal(p->rsdp, 0xe0000);
	assert_int_equal(mem_read(fv->vm.mem, p->rsdp, &rsdp, sizeof(rsdp)), 0);
	assert_memory_equal(rsdp.signature, "RSD PTR ", 8);
	assert_int_equal(sum((uint8_t *)&rsdp, 20), 0);
	assert_int_equal(sum((uint8_t *)&rsdp, 36), 0);
	xsdt = le64_get(rsdp.xsdt_address);
	assert_int_equal(mem_read(fv->vm.mem, xsdt, &h, sizeof(h)), 0);
	for (uint32_t i = 0; i < (le32_get(h.length) - 36) / 8; i++) {
		struct acpi_header t;
		le64 addr;

		assert_int_equal(mem_read(fv->vm.mem, xsdt + 36 + 8 * i, &addr, 8), 0);
		assert_int_equal(mem_read(fv->vm.mem, le64_get(addr), &t, sizeof(t)), 0);
		assert_true(le32_get(t.length) <= sizeof(table));
		assert_int_equal(
			mem_read(fv->vm.mem, le64_get(addr), table, le32_get(t.length)), 0);
		assert_int_equal(sum(table, le32_get(t.length)), 0);
		assert_true(p->size ? le64_get(addr) >= p->base : le64_get(addr) < 0xf0000);
	}
}

static void test_place(void **state)
{
	struct fake_vm_config cfg = {.ram_mib = 64};
	struct fake_vm *fv = fake_vm_new(&cfg);
	struct acpi_facts f = facts_of(4, 4);
	struct acpi_placed p;
	uint8_t code[9];
	struct err err;

	assert_int_equal(acpi_place(fv->vm.mem, 64 * MiB, &f, &p, &err), 0);
	assert_int_equal(p.size, 0);
	placed_check(fv, &p);
	/* FFFF:0000 resets the machine: mov dx, 0xcf9; mov al, 6; out dx, al; hlt; jmp hlt */
	assert_int_equal(mem_read(fv->vm.mem, 0xffff0, code, sizeof(code)), 0);
	assert_memory_equal(code, "\xba\xf9\x0c\xb0\x06\xee\xf4\xeb\xfd", sizeof(code));

	f = facts_of(ACPI_MAX_CPUS, ACPI_MAX_CPUS);
	assert_int_equal(acpi_place(fv->vm.mem, 64 * MiB, &f, &p, &err), 0);
	assert_int_equal(p.base + p.size, 64 * MiB);
	assert_int_equal(p.base % 4096, 0);
	placed_check(fv, &p);

	assert_int_equal(acpi_place(fv->vm.mem, 16 * MiB, &f, &p, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "-m"));
	assert_int_equal(acpi_place(fv->vm.mem, 128 * MiB, &f, &p, &err), -EFAULT);
	fake_vm_free(fv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_aml),	      cmocka_unit_test(test_aml_pkg_length),
		cmocka_unit_test(test_tables),	      cmocka_unit_test(test_many_cpus),
		cmocka_unit_test(test_asl_addresses), cmocka_unit_test(test_loader),
		cmocka_unit_test(test_place),	      cmocka_unit_test(test_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
