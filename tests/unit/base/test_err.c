/* base/err.h: texts, classes, truncation on a character, aliasing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/err.h"

static void test_set(void **state)
{
	struct err err = {.cls = ERR_KVM_MISSING_CAP};

	assert_int_equal(err_set(&err, ENOENT, "no %s %d", "disk", 7), -ENOENT);
	assert_string_equal(err.msg, "no disk 7");
	assert_int_equal(err.cls, ERR_GENERIC);
	assert_int_equal(err_set_class(&err, ERR_DEVICE_NOT_FOUND, ENODEV, "x"), -ENODEV);
	assert_int_equal(err.cls, ERR_DEVICE_NOT_FOUND);
	assert_int_equal(err_set(NULL, EIO, "nobody %s", "listens"), -EIO);
	assert_int_equal(err_set_class(NULL, ERR_GENERIC, EIO, "nobody"), -EIO);
	err_prefix(NULL, "nobody");
}

static void test_prefix(void **state)
{
	struct err err;

	err_set_class(&err, ERR_DEVICE_NOT_FOUND, EINVAL, "is truncated");
	err_prefix(&err, "-bios %s", "x.fd");
	assert_string_equal(err.msg, "-bios x.fd: is truncated");
	assert_int_equal(err.cls, ERR_DEVICE_NOT_FOUND);
	err_set(&err, EINVAL, "again: %s", err.msg);
	assert_string_equal(err.msg, "again: -bios x.fd: is truncated");
}

static void test_truncation(void **state)
{
	char text[2000];
	struct err err;

	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	err_set(&err, EINVAL, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	err_prefix(&err, "%s", "front");
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	assert_memory_equal(err.msg, "front: aaa", 10);

	/* "é" takes the bytes 510 and 511: it has to go as a whole. */
	memcpy(text + 510, "\xc3\xa9", 2);
	err_set(&err, EINVAL, "%s", text);
	assert_int_equal(strlen(err.msg), 510);
	/* "é" takes 509 and 510: it stays. */
	text[511] = 'a';
	memcpy(text + 509, "\xc3\xa9", 2);
	err_set(&err, EINVAL, "%s", text);
	assert_int_equal(strlen(err.msg), 511);
	assert_memory_equal(err.msg + 509, "\xc3\xa9", 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_truncation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
