/*
 * What people and scripts read: messages, sizes, trees of values, tables.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "img.h"

static void say(const char *prefix, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));

/* One line, whatever an image's names have in them. */
static void say(const char *prefix, const char *fmt, va_list ap)
{
	char text[1024];

	fflush(stdout);
	vsnprintf(text, sizeof(text), fmt, ap);
	for (char *p = text; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f) {
			*p = '?';
		}
	}
	fprintf(stderr, "nemu-img: %s%s\n", prefix, text);
}

void img_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
}

void img_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("warning: ", fmt, ap);
	va_end(ap);
}

/* Three significant digits in the largest unit of which there are at least 1000/1024. */
char *img_human(uint64_t bytes, char buf[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1000 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	snprintf(buf, 32, "%.3g %s", v, units[u]);
	return buf;
}

json_t *img_json_str(const char *text)
{
	json_t *v = json_string(text);
	char *copy;

	if (v) {
		return v;
	}
	copy = strdup(text);
	if (!copy) {
		return NULL;
	}
	for (char *p = copy; *p; p++) {
		if ((unsigned char)*p >= 0x80) {
			*p = '?';
		}
	}
	v = json_string(copy);
	free(copy);
	return v;
}

void img_json_print(json_t *v)
{
	json_dumpf(v, stdout, JSON_INDENT(4) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(v);
}

void img_snapshots_print(const struct blk_snapshot *s, size_t count)
{
	printf("%-9s %-16s %8s %19s %12s %10s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK",
	       "ICOUNT");
	for (size_t i = 0; i < count; i++, s++) {
		char size[32], date[32] = "", clock[64], icount[24] = "";
		time_t when = (time_t)s->date_sec;
		uint64_t secs = s->vm_clock_nsec / 1000000000;
		struct tm tm;

		if (localtime_r(&when, &tm)) {
			strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
		}
		snprintf(clock, sizeof(clock), "%02llu:%02u:%02u.%03u",
			 (unsigned long long)(secs / 3600), (unsigned)(secs / 60 % 60),
			 (unsigned)(secs % 60), (unsigned)(s->vm_clock_nsec / 1000000 % 1000));
		if (s->icount != UINT64_MAX) {
			snprintf(icount, sizeof(icount), "%llu", (unsigned long long)s->icount);
		}
		printf("%-9s %-16s %8s %19s %12s %10s\n", s->id, s->name,
		       img_human(s->vm_state_size, size), date, clock, icount);
	}
}

static void leaf_print(json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_STRING:
		printf(" %s\n", json_string_value(v));
		break;
	case JSON_INTEGER:
		printf(" %lld\n", (long long)json_integer_value(v));
		break;
	case JSON_TRUE:
		puts(" true");
		break;
	case JSON_FALSE:
		puts(" false");
		break;
	default:
		putchar('\n');
	}
}

static void entry_print(json_t *v, int indent)
{
	if (json_is_object(v) || json_is_array(v)) {
		putchar('\n');
		img_tree_print(v, indent + 1);
	} else {
		leaf_print(v);
	}
}

void img_tree_print(json_t *v, int indent)
{
	const char *key;
	json_t *child;
	size_t i;

	if (json_is_array(v)) {
		json_array_foreach (v, i, child) {
			printf("%*s[%zu]:", indent * 4, "", i);
			entry_print(child, indent);
		}
		return;
	}
	json_object_foreach (v, key, child) {
		printf("%*s", indent * 4, "");
		for (const char *p = key; *p; p++) {
			putchar(*p == '-' ? ' ' : *p);
		}
		putchar(':');
		entry_print(child, indent);
	}
}

void img_usage(const struct img_cmd *cmd)
{
	printf("usage: nemu-img %s [OPTION]... %s\n%c%s.\n\nOptions:\n", cmd->name, cmd->operands,
	       cmd->doc[0] - 'a' + 'A', cmd->doc + 1);
	for (const struct img_opt *o = cmd->opts; o->code; o++) {
		char left[64] = "", *p = left;

		if (o->code < 256) {
			p += sprintf(p, "-%c%s", o->code, o->name ? ", " : "");
		}
		if (o->name) {
			p += sprintf(p, "--%s", o->name);
		}
		if (o->arg) {
			sprintf(p, "%s%s", o->name ? "=" : " ", o->arg);
		}
		printf("  %-28s %s\n", left, o->doc);
	}
	printf("  %-28s %s\n", "-h, --help", "this text");
}
