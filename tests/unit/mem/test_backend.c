/* mem/backend.h: the properties and what is refused; memory that is mapped where it should be,
 * shared or not, populated or not; files that are made, kept, dropped, or left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem/backend.h"
#include "mem/mem.h"

static int parse(const char *text, struct mem_backend_config *c, struct err *err)
{
	enum mem_backend_kind kind;
	struct opts o;
	int ret;

	err->msg[0] = '\0';
	assert_int_equal(opts_parse_lists(&o, "-object", text, "qom-type",
					  (const char *const[]){"host-nodes", NULL}, err),
			 0);
	assert_true(mem_backend_kind_of(opts_get(&o, "qom-type"), &kind));
	ret = mem_backend_parse(&o, "m0", kind, c, err);
	opts_fini(&o);
	return ret;
}

static void good(const char *text, struct mem_backend_config *c)
{
	struct err err;

	if (parse(text, c, &err)) {
		fail_msg("%s: %s", text, err.msg);
	}
}

static void bad(const char *text, const char *names)
{
	struct mem_backend_config c;
	struct err err;

	assert_int_equal(parse(text, &c, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "-object memory-backend-"));
	if (!strstr(err.msg, names)) {
		fail_msg("%s: '%s' does not name %s", text, err.msg, names);
	}
	assert_null(c.what);
	assert_null(c.path);
}

static void test_kinds(void **state)
{
	enum mem_backend_kind kind;

	assert_true(mem_backend_kind_of("memory-backend-file", &kind));
	assert_int_equal(kind, MEM_BACKEND_FILE);
	assert_false(mem_backend_kind_of("memory-backend-epc", &kind));
	assert_false(mem_backend_kind_of("memory-backend-", &kind));
	assert_false(mem_backend_kind_of("iothread", &kind));
}

static void test_properties(void **state)
{
	struct mem_backend_config c;

	good("memory-backend-ram,size=2G", &c);
	assert_int_equal(c.size, 2 * GiB);
	assert_true(c.reserve && !c.share && !c.prealloc && !c.hugetlb && !c.seal);
	assert_int_equal(c.policy, MEM_POLICY_DEFAULT);
	assert_string_equal(c.what, "-object memory-backend-ram,id=m0");
	mem_backend_config_fini(&c);

	good("memory-backend-memfd,size=1G,hugetlb=on,hugetlbsize=1G,prealloc=on,"
	     "prealloc-threads=8,reserve=off,seal=off,merge=off,dump=off,"
	     "x-use-canonical-path-for-ramblock-id=off,policy=interleave,host-nodes=1-3,"
	     "host-nodes=64,host-nodes=127",
	     &c);
	assert_true(c.share && c.hugetlb && c.prealloc && !c.reserve && !c.seal);
	assert_int_equal(c.hugetlbsize, GiB);
	assert_int_equal(c.prealloc_threads, 8);
	assert_int_equal(c.policy, MEM_POLICY_INTERLEAVE);
	assert_true(c.host_nodes[0] == 0xe && c.host_nodes[1] == (UINT64_C(1) << 63 | 1));
	mem_backend_config_fini(&c);

	good("memory-backend-memfd,size=1M", &c);
	assert_true(c.share && c.seal);
	mem_backend_config_fini(&c);

	good("memory-backend-file,size=1M,mem-path=/"
	     "x,share=on,align=2M,discard-data=on,pmem=off,"
	     "rom=auto",
	     &c);
	assert_string_equal(c.path, "/x");
	assert_true(c.share && c.discard_data && c.align == 2 * MiB);
	mem_backend_config_fini(&c);
	good("memory-backend-file,size=1M,mem-path=/x,readonly=on,rom=off", &c);
	assert_true(c.readonly && !c.share);
	mem_backend_config_fini(&c);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text, *names;
	} t[] = {
		{"ram", "size"},
		{"ram,size=0", "size=0"},
		{"ram,size=4097", "size=4097"},
		{"ram,size=1M,merge=on", "merge=on"},
		{"ram,size=1M,dump=on", "dump=on"},
		{"ram,size=1M,dump=perhaps", "dump=perhaps"},
		{"ram,size=1M,mem-path=/x", "mem-path"},
		{"ram,size=1M,hugetlb=on", "hugetlb"},
		{"ram,size=1M,pmem=off", "pmem"},
		{"ram,size=1M,prealloc-context=c", "prealloc-context"},
		{"ram,size=1M,prealloc-threads=0", "prealloc-threads=0"},
		{"ram,size=1M,policy=bind", "host-nodes"},
		{"ram,size=1M,policy=weighted,host-nodes=0", "policy=weighted"},
		{"ram,size=1M,host-nodes=0", "host-nodes"},
		{"ram,size=1M,policy=bind,host-nodes=128", "host-nodes=128"},
		{"ram,size=1M,policy=bind,host-nodes=3-2", "host-nodes=3-2"},
		{"ram,size=1M,policy=bind,host-nodes=-1", "host-nodes=-1"},
		{"memfd,size=1M,hugetlbsize=2M", "hugetlb=on"},
		{"memfd,size=4M,hugetlb=on,hugetlbsize=3M", "hugetlbsize=3145728"},
		{"file,size=1M", "mem-path"},
		{"file,size=1M,mem-path=", "mem-path"},
		{"file,size=1M,mem-path=/x,align=3M", "align=3145728"},
		{"file,size=1M,mem-path=/x,pmem=on", "pmem=on"},
		{"file,size=1M,mem-path=/x,readonly=on", "readonly=on"},
		{"file,size=1M,mem-path=/x,rom=on", "rom=on"},
		{"file,size=1M,mem-path=/x,readonly=on,rom=off,share=on", "readonly=on"},
		{"file,size=1M,mem-path=/x,readonly=on,rom=off,discard-data=on",
		 "discard-data"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char text[160];

		snprintf(text, sizeof(text), "memory-backend-%s", t[i].text);
		bad(text, t[i].names);
	}
}

/* --- open --- */

static void opened(const char *text, uint64_t gpa, struct mem_backend *b)
{
	struct mem_backend_config c;
	struct err err = {0};

	good(text, &c);
	if (mem_backend_open(&c, gpa, b, &err)) {
		fail_msg("%s: %s", text, err.msg);
	}
	assert_int_equal(b->size, c.size);
	mem_backend_config_fini(&c);
}

static void not_opened(const char *text, int error, const char *names)
{
	struct mem_backend b = {0};
	struct mem_backend_config c;
	struct err err = {0};

	good(text, &c);
	assert_int_equal(mem_backend_open(&c, 0, &b, &err), -error);
	assert_null(b.host);
	if (!strstr(err.msg, names)) {
		fail_msg("%s: '%s' does not name %s", text, err.msg, names);
	}
	mem_backend_config_fini(&c);
}

static uint64_t resident(const struct mem_backend *b)
{
	size_t pages = b->size / 4096, n = 0;
	unsigned char *vec = malloc(pages);

	assert_int_equal(mincore(b->host, b->size, vec), 0);
	for (size_t i = 0; i < pages; i++) {
		n += vec[i] & 1;
	}
	free(vec);
	return n * 4096;
}

static void test_address(void **state)
{
	struct mem_backend b;

	opened("memory-backend-ram,size=16M", 0, &b);
	assert_int_equal((uintptr_t)b.host % (2 * MiB), 0);
	mem_backend_close(&b);
	assert_null(b.host);
	opened("memory-backend-ram,size=16M", 5 * MiB + 4096, &b);
	assert_int_equal((uintptr_t)b.host % (2 * MiB), MiB + 4096);
	mem_backend_close(&b);
	opened("memory-backend-memfd,size=2044K", 4096, &b); /* less than a huge page */
	memset(b.host, 1, b.size);
	mem_backend_close(&b);
	mem_backend_close(&b); /* harmless */
}

/* Neither here nor in the kernel is anything done for each page. */
static void test_huge_and_untouched(void **state)
{
	struct mem_backend b;

	opened("memory-backend-ram,size=512G,reserve=off", 4 * GiB, &b);
	((volatile char *)b.host)[0] = 1;
	((volatile char *)b.host)[b.size - 1] = 1;
	mem_backend_close(&b);
	opened("memory-backend-memfd,size=1T", 4 * GiB, &b);
	((volatile char *)b.host)[b.size - 1] = 1;
	mem_backend_close(&b);
	not_opened("memory-backend-ram,size=8E,reserve=off", ENOMEM, "8589934592 GiB");
}

static void test_prealloc(void **state)
{
	struct mem_backend b;

	opened("memory-backend-memfd,size=12M", 0, &b);
	assert_int_equal(resident(&b), 0);
	mem_backend_close(&b);
	/* more threads than are made, and parts that do not come out even */
	opened("memory-backend-memfd,size=12300K,prealloc=on,prealloc-threads=1000", 0, &b);
	assert_int_equal(resident(&b), 12300 * KiB);
	mem_backend_close(&b);
	opened("memory-backend-ram,size=8K,prealloc=on,prealloc-threads=7", 0, &b);
	assert_int_equal(resident(&b), 8 * KiB);
	mem_backend_close(&b);
}

static void test_nodes(void **state)
{
	not_opened("memory-backend-ram,size=1M,policy=bind,host-nodes=127", EINVAL, "node 127");
}

/* --- files --- */

static char dir[] = "/tmp/nemu-backend-XXXXXX";

static const char *path_of(const char *name)
{
	static char path[64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void write_file(const char *name, const char *text, off_t size)
{
	int fd = open(path_of(name), O_CREAT | O_WRONLY | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static struct stat stat_of(const char *name)
{
	struct stat st;

	assert_int_equal(stat(path_of(name), &st), 0);
	return st;
}

static char first_byte(const char *name)
{
	int fd = open(path_of(name), O_RDONLY);
	char c;

	assert_int_equal(read(fd, &c, 1), 1);
	close(fd);
	return c;
}

static const char *file_text(const char *name, const char *more)
{
	static char text[160];

	snprintf(text, sizeof(text), "memory-backend-file,size=1M,mem-path=%s%s", path_of(name),
		 more);
	return text;
}

static void test_file_share(void **state)
{
	struct mem_backend b;

	opened(file_text("new", ",share=on"), 0, &b);
	assert_int_equal(stat_of("new").st_size, MiB);
	assert_int_equal(stat_of("new").st_mode & 0777, 0600);
	*(char *)b.host = 'g';
	mem_backend_close(&b);
	assert_int_equal(first_byte("new"), 'g');

	/* its own copy of what is there */
	opened(file_text("new", ""), 0, &b);
	assert_int_equal(*(char *)b.host, 'g');
	*(char *)b.host = 'h';
	mem_backend_close(&b);
	assert_int_equal(first_byte("new"), 'g');

	opened(file_text("new", ",readonly=on,rom=off"), 0, &b);
	*(char *)b.host = 'i';
	mem_backend_close(&b);
	assert_int_equal(first_byte("new"), 'g');

	opened(file_text("new", ",share=on,discard-data=on"), 0, &b);
	mem_backend_close(&b);
	assert_int_equal(stat_of("new").st_size, MiB);
	assert_int_equal(first_byte("new"), 0);
}

static void test_file_sizes(void **state)
{
	struct mem_backend b;

	write_file("empty", "", 0);
	opened(file_text("empty", ",share=on"), 0, &b);
	assert_int_equal(stat_of("empty").st_size, MiB);
	mem_backend_close(&b);

	write_file("large", "l", 4 * MiB);
	opened(file_text("large", ",share=on"), 0, &b);
	assert_int_equal(*(char *)b.host, 'l');
	assert_int_equal(stat_of("large").st_size, 4 * MiB);
	mem_backend_close(&b);

	write_file("small", "s", MiB - 1);
	not_opened(file_text("small", ",share=on"), EINVAL, "1048575 bytes");
	assert_int_equal(stat_of("small").st_size, MiB - 1);
	write_file("none", "", 0);
	not_opened(file_text("none", ",readonly=on,rom=off"), EINVAL, "0 bytes");
}

static void test_file_refused(void **state)
{
	struct mem_backend b;
	struct stat st;

	not_opened(file_text("no/such", ""), ENOENT, "no/such");
	not_opened(file_text("absent", ",readonly=on,rom=off"), ENOENT, "absent");
	assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
	not_opened(file_text("fifo", ""), EINVAL, "not a regular file"); /* and does not wait */
	/* a file that was made for nothing goes again */
	not_opened(file_text("undone", ",policy=bind,host-nodes=127"), EINVAL, "host-nodes");
	assert_int_equal(stat(path_of("undone"), &st), -1);
	/* one that was there stays */
	write_file("kept", "k", MiB);
	not_opened(file_text("kept", ",policy=bind,host-nodes=127"), EINVAL, "host-nodes");
	assert_int_equal(first_byte("kept"), 'k');
	/* a directory: a file without a name */
	opened(file_text("", ",share=on"), 0, &b);
	*(char *)b.host = 1;
	mem_backend_close(&b);
}

static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[80];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_properties),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_address),
		cmocka_unit_test(test_huge_and_untouched),
		cmocka_unit_test(test_prealloc),
		cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_file_share),
		cmocka_unit_test(test_file_sizes),
		cmocka_unit_test(test_file_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
