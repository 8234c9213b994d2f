/* core/device.h: the pause protocol, order of calls, saving and loading all or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/device.h"

static char trace[256]; /* what was called, in order */

static void note(const char *what, const struct device *d)
{
	size_t len = strlen(trace);

	snprintf(trace + len, sizeof(trace) - len, "%s:%s ", what, d->id);
}

static void expect_trace(const char *text)
{
	assert_string_equal(trace, text);
	trace[0] = 0;
}

struct dev {
	struct device d;
	uint32_t value, loaded;
	int save_rc, load_rc;
};

static void op_reset(struct device *d)
{
	note("reset", d);
}
static void op_pause_now(struct device *d)
{
	note("pause", d);
	device_paused(d);
}
static void op_pause_later(struct device *d)
{
	note("pause", d);
}
static void op_resume(struct device *d)
{
	note("resume", d);
}
static void op_destroy(struct device *d)
{
	note("destroy", d);
}

struct dev_state {
	uint32_t value;
};
static const struct state_field dev_fields[] = {
	STATE_F_RANGE(STATE_U32, struct dev_state, value, 0, 1000),
	STATE_F_END,
};
static const struct state_desc dev_desc = {
	.name = "dev",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct dev_state),
	.fields = dev_fields,
};

/* The same to whoever reads the stream, but it writes any value: a hostile sender. */
static const struct state_field hostile_fields[] = {
	STATE_F_U32(struct dev_state, value),
	STATE_F_END,
};
static const struct state_desc hostile_desc = {
	.name = "dev",
	.version = 1,
	.min_version = 1,
	.size = sizeof(struct dev_state),
	.fields = hostile_fields,
};

static int op_save(struct device *d, void *st, struct err *err)
{
	struct dev *dev = container_of(d, struct dev, d);

	((struct dev_state *)st)->value = dev->value;
	return dev->save_rc ? err_set(err, -dev->save_rc, "cannot save") : 0;
}

static int op_load(struct device *d, const void *st, struct err *err)
{
	struct dev *dev = container_of(d, struct dev, d);

	dev->loaded = ((const struct dev_state *)st)->value;
	return dev->load_rc ? err_set(err, -dev->load_rc, "cannot load") : 0;
}

static const struct device_state_ops dev_state = {&dev_desc, op_save, op_load};
static const struct device_state_ops *const dev_states[] = {&dev_state, NULL};

static const struct device_state_ops hostile_state = {&hostile_desc, op_save, op_load};
static const struct device_state_ops *const hostile_states[] = {&hostile_state, NULL};

static const struct device_ops hostile_ops = {.name = "now", .state = hostile_states};
static const struct device_ops now_ops = {
	.name = "now",
	.reset = op_reset,
	.pause = op_pause_now,
	.resume = op_resume,
	.destroy = op_destroy,
	.state = dev_states,
};
static const struct device_ops later_ops = {
	.name = "later",
	.reset = op_reset,
	.pause = op_pause_later,
	.resume = op_resume,
	.destroy = op_destroy,
	.state = dev_states,
};
static const struct device_ops bare_ops = {.name = "bare"};

static void on_paused(void *opaque)
{
	++*(int *)opaque;
}

static void test_ids(void **state)
{
	struct device_list l;
	struct dev a = {0}, b = {0};
	char id[80];
	struct err err;

	device_list_init(&l);
	assert_int_equal(device_add(&l, &a.d, &bare_ops, "a", &err), 0);
	assert_int_equal(device_add(&l, &b.d, &bare_ops, "a", &err), -EEXIST);
	assert_non_null(strstr(err.msg, "'a'"));
	assert_int_equal(device_add(&l, &b.d, &bare_ops, "", &err), -EINVAL);
	memset(id, 'x', sizeof(id));
	id[64] = 0;
	assert_int_equal(device_add(&l, &b.d, &bare_ops, id, &err), -EINVAL);
	id[63] = 0;
	assert_int_equal(device_add(&l, &b.d, &bare_ops, id, &err), 0);
	assert_ptr_equal(device_find(&l, id), &b.d);
	assert_ptr_equal(device_find(&l, "a"), &a.d);
	assert_null(device_find(&l, "b"));
	device_remove(&a.d);
	device_remove(&a.d);
	assert_null(device_find(&l, "a"));
	assert_int_equal(device_add(&l, &a.d, &bare_ops, "a", &err), 0);
}

static void test_pause(void **state)
{
	struct dev a = {0}, b = {0}, c = {0}, e = {0};
	struct device_list l;
	int paused = 0;

	trace[0] = 0;
	device_list_init(&l);
	device_list_pause(&l, on_paused, &paused);
	assert_int_equal(paused, 1); /* nothing there: at once */

	device_add(&l, &a.d, &now_ops, "a", NULL);
	device_add(&l, &b.d, &bare_ops, "b", NULL);
	device_list_pause(&l, on_paused, &paused);
	assert_int_equal(paused, 2);
	expect_trace("pause:a ");
	device_list_resume(&l);
	expect_trace("resume:a ");

	/* Two that take their time, in either order. */
	device_add(&l, &c.d, &later_ops, "c", NULL);
	device_add(&l, &e.d, &later_ops, "e", NULL);
	device_list_pause(&l, on_paused, &paused);
	expect_trace("pause:a pause:c pause:e ");
	assert_int_equal(paused, 2);
	assert_true(a.d.paused && b.d.paused && !c.d.paused);
	device_paused(&e.d);
	assert_int_equal(paused, 2);
	device_paused(&c.d);
	assert_int_equal(paused, 3);
	/* Pausing what is paused asks nobody again. */
	device_list_pause(&l, on_paused, &paused);
	assert_int_equal(paused, 4);
	expect_trace("");
	device_list_reset(&l);
	expect_trace("reset:a reset:c reset:e ");
	device_list_resume(&l);
	expect_trace("resume:a resume:c resume:e ");
	device_list_resume(&l);
	expect_trace("");
	device_list_destroy(&l);
	expect_trace("destroy:e destroy:c destroy:a ");
	assert_true(list_empty(&l.devices));
}

/* Saves a and b of `from`; loads into `to`. */
static int transfer(struct device_list *from, struct device_list *to, struct err *err)
{
	struct state_out *o;
	struct state_in *in;
	const void *data;
	size_t len;
	int rc;

	assert_int_equal(state_out_new(&o), 0);
	rc = device_list_save(from, o, err);
	if (rc == 0) {
		assert_int_equal(state_out_finish(o, &data, &len), 0);
		assert_int_equal(state_in_open(&in, data, len, err), 0);
		rc = device_list_load(to, in, err);
		state_in_free(in);
	}
	state_out_free(o);
	return rc;
}

static void test_state(void **state)
{
	struct dev a = {.value = 1}, b = {.value = 1000}, c = {0}, x = {0}, y = {0}, z = {0};
	struct device_list from, to;
	struct err err = {0};

	device_list_init(&from);
	device_list_init(&to);
	device_add(&from, &a.d, &hostile_ops, "a", NULL);
	device_add(&from, &c.d, &bare_ops, "c", NULL);
	device_add(&from, &b.d, &hostile_ops, "b", NULL);
	device_add(&to, &x.d, &now_ops, "a", NULL);
	device_add(&to, &z.d, &bare_ops, "c", NULL);
	device_add(&to, &y.d, &now_ops, "b", NULL);
	assert_int_equal(transfer(&from, &to, &err), 0);
	assert_int_equal(x.loaded, 1);
	assert_int_equal(y.loaded, 1000);

	/* The second section is bad: the first device has not been touched. */
	x.loaded = y.loaded = 0;
	b.value = 1001;
	assert_int_equal(transfer(&from, &to, &err), -EINVAL);
	assert_memory_equal(err.msg, "b: ", 3);
	assert_int_equal(x.loaded, 0);
	/* One device more than the stream has. */
	b.value = 5;
	device_remove(&b.d);
	assert_int_equal(transfer(&from, &to, &err), -ENOENT);
	assert_memory_equal(err.msg, "b: ", 3);
	assert_int_equal(x.loaded, 0);
	device_add(&from, &b.d, &hostile_ops, "b", NULL);
	/* A device that refuses, one that cannot be saved. */
	y.load_rc = -EINVAL;
	assert_int_equal(transfer(&from, &to, &err), -EINVAL);
	assert_string_equal(err.msg, "b: cannot load");
	y.load_rc = 0;
	b.save_rc = -EIO;
	assert_int_equal(transfer(&from, &to, &err), -EIO);
	assert_string_equal(err.msg, "b: cannot save");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
