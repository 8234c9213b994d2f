/*
 * One thing that a host offers to guests or lacks, for -check-host. Keys are stable: programs
 * read them.
 */
#ifndef CORE_HOST_FACT_H
#define CORE_HOST_FACT_H

enum host_state {
	HOST_OK,
	HOST_MISSING, /* guests run, without something */
	HOST_FATAL,   /* no guest can run */
	HOST_UNKNOWN, /* could not be asked, because something else is missing */
};

/* Valid during the call only; the texts are NULL where there is nothing to say. */
struct host_fact {
	const char *key; /* "kvm.device", "hugepages.2048kB" */
	enum host_state state;
	const char *value;	 /* what was found: "yes", "ABI 3", a number */
	const char *consequence; /* of its absence */
	const char *remedy;
};
typedef void host_fact_fn(void *opaque, const struct host_fact *f);

#endif
