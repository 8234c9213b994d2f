/*
 * JSON forms of options: an object becomes the same flat pairs as text, {"a": {"b": [1, 2]}} is
 * a.b.0=1,a.b.1=2. The depth is bounded; what has no flat form is refused by name.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "base/opts.h"

#define MAX_JSON 8 /* levels */

static int json_flatten(struct opts *o, const char *prefix, json_t *v, int depth, bool null,
			struct err *err)
{
	char key[256], num[32];
	const char *name, *text = NULL;
	json_t *child;
	size_t i;
	int r = 0;

	if (depth > MAX_JSON) {
		return err_set(err, EINVAL, "%s: the JSON value is nested too deeply", o->what);
	}
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		json_object_foreach(v, name, child)
		{
			int n = snprintf(key, sizeof(key), "%s%s%s", prefix, *prefix ? "." : "",
					 name);

			if (n < 0 || (size_t)n >= sizeof(key)) {
				return err_set(err, EINVAL, "%s: the key '%.40s…' is too long",
					       o->what, name);
			}
			r = json_flatten(o, key, child, depth + 1, null, err);
			if (r) {
				return r;
			}
		}
		return 0;
	case JSON_ARRAY:
		json_array_foreach(v, i, child)
		{
			snprintf(key, sizeof(key), "%.200s.%zu", prefix, i);
			r = json_flatten(o, key, child, depth + 1, null, err);
			if (r) {
				return r;
			}
		}
		return 0;
	case JSON_STRING:
		text = json_string_value(v);
		break;
	case JSON_INTEGER:
		snprintf(num, sizeof(num), "%lld", (long long)json_integer_value(v));
		text = num;
		break;
	case JSON_TRUE:
		text = "on";
		break;
	case JSON_FALSE:
		text = "off";
		break;
	case JSON_NULL:
		text = null ? "" : NULL;
		break;
	default:
		break;
	}
	if (!text) {
		return err_set(err, EINVAL,
			       "%s: '%s' has a value of a type that is not supported", o->what,
			       prefix);
	}
	return opts_add(o, prefix, text, err);
}

int opts_add_json(struct opts *o, const char *json, bool null, struct err *err)
{
	json_error_t je;
	json_t *v = json_loads(json, JSON_REJECT_DUPLICATES, &je);
	int r;

	if (!v) {
		return err_set(err, EINVAL, "%s: not valid JSON: %s (column %d)", o->what,
			       je.text, je.column);
	}
	if (json_is_object(v)) {
		r = json_flatten(o, "", v, 0, null, err);
	} else {
		r = err_set(err, EINVAL, "%s: the JSON value must be an object", o->what);
	}
	json_decref(v);
	return r;
}
