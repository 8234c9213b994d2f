/* state/: what is saved loads again; what cannot be loaded is not saved. */
#include "tests/unit/state/test_state_int.h"

static void test_crc_known_values(void **state)
{
	/* RFC 3720 B.4 */
	uint8_t zeros[32] = {0}, ones[32], count[32];
	struct crc32c c;

	crc32c_init(&c);
	memset(ones, 0xff, sizeof(ones));
	for (unsigned i = 0; i < sizeof(count); i++) {
		count[i] = (uint8_t)i;
	}
	assert_int_equal(crc32c_update(&c, 0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c_update(&c, 0, zeros, sizeof(zeros)), 0x8a9136aa);
	assert_int_equal(crc32c_update(&c, 0, ones, sizeof(ones)), 0x62a8ab43);
	assert_int_equal(crc32c_update(&c, 0, count, sizeof(count)), 0x46dd794e);
	for (size_t cut = 0; cut <= sizeof(count); cut++) {
		uint32_t crc = crc32c_update(&c, 0, count, cut);

		assert_int_equal(crc32c_update(&c, crc, count + cut, sizeof(count) - cut),
				 0x46dd794e);
	}
}

static void test_every_type(void **state)
{
	struct dev_state a, b;
	struct err err = {0};
	size_t len;
	uint8_t *data;

	dev_state_fill(&a);
	data = stream_of(&a, &len);
	assert_int_equal(stream_load(data, len, &b, &err), 0);
	assert_true(dev_state_equal(&a, &b));
	free(data);
}

static void test_bounds_are_inclusive(void **state)
{
	struct dev_state a, b;
	size_t len;
	uint8_t *data;

	dev_state_fill(&a);
	for (int high = 0; high < 2; high++) {
		a.status = high ? UINT8_MAX : 0;
		a.vector = high ? 1024 : 1;
		a.features = high ? UINT32_MAX : 0;
		a.offset = high ? UINT64_MAX : 0;
		a.broken = high;
		a.fifo_len = high ? sizeof(a.fifo) : 0;
		memset(a.fifo, high ? 0x5a : 0, sizeof(a.fifo));
		a.nreq = high ? ARRAY_SIZE(a.req) : 0;
		memset(a.req, 0, sizeof(a.req));
		a.added = high ? 9 : 5;
		data = stream_of(&a, &len);
		assert_int_equal(stream_load(data, len, &b, NULL), 0);
		assert_true(dev_state_equal(&a, &b));
		free(data);
	}
}

static void test_unused_part_is_not_saved(void **state)
{
	struct dev_state a, b;
	size_t len, again;
	uint8_t *data, *other;

	dev_state_fill(&a);
	data = stream_of(&a, &len);
	memset(a.fifo + a.fifo_len, 0xee, sizeof(a.fifo) - a.fifo_len);
	memset(&a.req[a.nreq], 0xee, sizeof(a.req[0]));
	other = stream_of(&a, &again);
	assert_int_equal(len, again);
	assert_memory_equal(data, other, len);
	assert_int_equal(stream_load(other, again, &b, NULL), 0);
	for (size_t i = b.fifo_len; i < sizeof(b.fifo); i++) {
		assert_int_equal(b.fifo[i], 0);
	}
	assert_int_equal(b.req[3].desc, 0);
	free(data);
	free(other);
}

static void put_fails(struct dev_state *a, int want)
{
	struct dev_state good, b;
	struct state_out *o;
	struct state_in *in;
	const void *data;
	size_t len;

	dev_state_fill(&good);
	assert_int_equal(state_out_new(&o), 0);
	assert_int_equal(state_put(o, &dev_desc, "first", &good), 0);
	assert_int_equal(state_put(o, &dev_desc, "bad", a), want);
	assert_int_equal(state_put(o, &dev_desc, "bad", &good), 0); /* it left nothing */
	assert_int_equal(state_out_finish(o, &data, &len), 0);
	assert_int_equal(state_in_open(&in, data, len, NULL), 0);
	assert_int_equal(state_get(in, &dev_desc, "first", &b, NULL), 0);
	assert_true(dev_state_equal(&good, &b));
	assert_int_equal(state_get(in, &dev_desc, "bad", &b, NULL), 0);
	assert_true(dev_state_equal(&good, &b));
	assert_int_equal(state_in_check_used(in, NULL), 0);
	state_in_free(in);
	state_out_free(o);
}

static void test_bad_structure_is_not_saved(void **state)
{
	static const uint8_t two = 2;
	struct dev_state a;

	dev_state_fill(&a);
	a.vector = 0;
	put_fails(&a, -EINVAL);
	a.vector = 1025;
	put_fails(&a, -EINVAL);
	dev_state_fill(&a);
	a.fifo_len = sizeof(a.fifo) + 1;
	put_fails(&a, -EINVAL);
	a.fifo_len = UINT32_MAX;
	put_fails(&a, -EINVAL);
	dev_state_fill(&a);
	a.nreq = ARRAY_SIZE(a.req) + 1;
	put_fails(&a, -EINVAL);
	dev_state_fill(&a);
	a.req[2].size = 0; /* ring_validate() */
	put_fails(&a, -EINVAL);
	dev_state_fill(&a);
	memcpy(&a.ctrl.ready, &two, 1);
	put_fails(&a, -EINVAL);
}

static void test_names(void **state)
{
	struct dev_state a;
	struct state_out *o;
	char instance[STATE_INSTANCE_MAX + 2];

	dev_state_fill(&a);
	assert_int_equal(state_out_new(&o), 0);
	memset(instance, 'x', sizeof(instance));
	instance[STATE_INSTANCE_MAX + 1] = '\0';
	assert_int_equal(state_put(o, &dev_desc, instance, &a), -EINVAL);
	instance[STATE_INSTANCE_MAX] = '\0';
	assert_int_equal(state_put(o, &dev_desc, instance, &a), 0);
	assert_int_equal(state_put(o, &dev_desc, instance, &a), -EEXIST);
	assert_int_equal(state_put(o, &dev_desc, "", &a), 0);
	assert_int_equal(state_put(o, &dev_desc, "a\nb", &a), -EINVAL);
	assert_int_equal(state_put_blob(o, "", "d0", "x", 1), -EINVAL);
	assert_int_equal(state_put_blob(o, "dev", "", "x", 1), -EEXIST);
	state_out_free(o);
}

static void test_blobs_and_sections(void **state)
{
	struct dev_state a, b;
	struct err err = {0};
	struct state_out *o;
	struct state_in *in;
	const void *data, *blob, *again;
	size_t len, len_again, size = 3 * MiB + 1;
	uint64_t blob_len;
	uint8_t *big = malloc(size);

	assert_non_null(big);
	for (size_t i = 0; i < size; i++) {
		big[i] = (uint8_t)(i * 31 >> 3);
	}
	dev_state_fill(&a);
	assert_int_equal(state_out_new(&o), 0);
	assert_int_equal(state_put_blob(o, "ram", "low", big, size), 0);
	assert_int_equal(state_put_blob(o, "ram", "none", NULL, 0), 0);
	for (unsigned i = 0; i < 300; i++) {
		char name[16];

		snprintf(name, sizeof(name), "d%u", i);
		a.offset = i;
		assert_int_equal(state_put(o, &dev_desc, name, &a), 0);
	}
	assert_int_equal(state_out_finish(o, &data, &len), 0);
	assert_int_equal(state_out_finish(o, &again, &len_again), 0);
	assert_ptr_equal(data, again);
	assert_int_equal(len, len_again);

	assert_int_equal(state_in_open(&in, data, len, &err), 0);
	for (unsigned i = 300; i-- > 0;) {
		char name[16];

		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(state_get(in, &dev_desc, name, &b, &err), 0);
		assert_int_equal(b.offset, i);
		assert_int_equal(state_get(in, &dev_desc, name, &b, &err), -EEXIST);
		assert_int_equal(b.offset, 0);
	}
	assert_int_equal(state_get(in, &dev_desc, "d300", &b, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "dev 'd300'"));
	assert_int_equal(state_get(in, &dev_desc, "d", &b, &err), -ENOENT);
	assert_int_equal(state_get(in, &ring_desc, "d0", &b.ctrl, &err), -ENOENT);

	assert_int_equal(state_in_check_used(in, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "ram 'low'"));
	assert_int_equal(state_get_blob(in, "ram", "low", &blob, &blob_len, &err), 0);
	assert_int_equal(blob_len, size);
	assert_memory_equal(blob, big, size);
	assert_int_equal(state_get_blob(in, "ram", "low", &blob, &blob_len, &err), -EEXIST);
	assert_int_equal(state_in_check_used(in, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "ram 'none'"));
	assert_int_equal(state_get_blob(in, "ram", "none", &blob, &blob_len, &err), 0);
	assert_int_equal(blob_len, 0);
	assert_int_equal(state_in_check_used(in, &err), 0);
	state_in_free(in);
	state_out_free(o);
	free(big);
}

static void test_kind_mismatch(void **state)
{
	struct dev_state a, b;
	struct state_out *o;
	struct state_in *in;
	const void *data, *blob;
	uint64_t blob_len;
	size_t len;

	dev_state_fill(&a);
	assert_int_equal(state_out_new(&o), 0);
	assert_int_equal(state_put(o, &dev_desc, "d0", &a), 0);
	assert_int_equal(state_put_blob(o, "dev", "d1", &a, sizeof(a)), 0);
	assert_int_equal(state_out_finish(o, &data, &len), 0);
	assert_int_equal(state_in_open(&in, data, len, NULL), 0);
	assert_int_equal(state_get_blob(in, "dev", "d0", &blob, &blob_len, NULL), -EINVAL);
	assert_int_equal(state_get(in, &dev_desc, "d1", &b, NULL), -EINVAL);
	assert_int_equal(state_get(in, &dev_desc, "d0", &b, NULL), 0);
	state_in_free(in);
	state_out_free(o);
}

static void test_empty_stream(void **state)
{
	struct state_out *o;
	struct state_in *in;
	struct dev_state b;
	const void *data;
	size_t len;

	assert_int_equal(state_out_new(&o), 0);
	assert_int_equal(state_out_finish(o, &data, &len), 0);
	assert_int_equal(state_in_open(&in, data, len, NULL), 0);
	assert_int_equal(state_in_check_used(in, NULL), 0);
	assert_int_equal(state_get(in, &dev_desc, "d0", &b, NULL), -ENOENT);
	state_in_free(in);
	state_out_free(o);
	state_out_free(NULL);
	state_in_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc_known_values),
		cmocka_unit_test(test_every_type),
		cmocka_unit_test(test_bounds_are_inclusive),
		cmocka_unit_test(test_unused_part_is_not_saved),
		cmocka_unit_test(test_bad_structure_is_not_saved),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_blobs_and_sections),
		cmocka_unit_test(test_kind_mismatch),
		cmocka_unit_test(test_empty_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
