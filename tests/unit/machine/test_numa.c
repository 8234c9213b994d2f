/* machine/numa.h: nodes, their CPUs by number and by topology, distances, what the HMAT has; what
 * is refused, with a sentence that names it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "control/cli.h"
#include "machine/numa.h"

#define TWO  "-numa node,memdev=a -numa node,memdev=b "
#define HMAT "-machine hmat=on "

struct resolved {
	struct vm_config cfg;
	struct numa numa;
	struct err err;
	int ret;
};

static struct resolved *resolve(const char *line)
{
	struct resolved *r = calloc(1, sizeof(*r));
	char *copy = strdup(line), *argv[64] = {(char *)"nemu"}, *save = NULL;
	enum cli_result what;
	int argc = 1;

	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		assert_true(argc < 64);
		argv[argc++] = w;
	}
	if (cli_parse(argc, argv, &r->cfg, &what, &r->err)) {
		fail_msg("%s: %s", line, r->err.msg);
	}
	r->ret = numa_resolve(&r->cfg, &r->numa, &r->err);
	free(copy);
	return r;
}

static void done(struct resolved *r)
{
	numa_fini(&r->numa);
	vm_config_fini(&r->cfg);
	free(r);
}

static struct resolved *good(const char *line)
{
	struct resolved *r = resolve(line);

	if (r->ret) {
		fail_msg("%s: %s", line, r->err.msg);
	}
	return r;
}

static void bad(const char *line, const char *names)
{
	struct resolved *r = resolve(line);

	assert_int_equal(r->ret, -EINVAL);
	if (!strstr(r->err.msg, names)) {
		fail_msg("%s: '%s' does not name '%s'", line, r->err.msg, names);
	}
	assert_int_equal(r->numa.nodes, 0);
	assert_null(r->numa.cpu_node);
	assert_null(r->numa.lb);
	assert_null(r->numa.cache);
	done(r);
}

static void cpus_are(const char *line, const char *nodes)
{
	struct resolved *r = good(line);

	for (unsigned i = 0; nodes[i]; i++) {
		if (r->numa.cpu_node[i] != nodes[i] - '0') {
			fail_msg("%s: CPU %u is in node %d, not %c", line, i,
				 r->numa.cpu_node[i], nodes[i]);
		}
		assert_true(r->numa.node[nodes[i] - '0'].has_cpu);
	}
	assert_int_equal(r->cfg.cpus, strlen(nodes));
	done(r);
}

static void test_none(void **state)
{
	done(good(""));
	bad(HMAT, "hmat=on");
}

static void test_nodes(void **state)
{
	struct resolved *r =
		good("-numa cpu,node-id=2,socket-id=0 -numa node,nodeid=2,memdev=c "
		     "-numa node,nodeid=0,memdev=a -numa node,nodeid=1");

	assert_int_equal(r->numa.nodes, 3);
	assert_string_equal(r->numa.node[0].memdev, "a");
	assert_null(r->numa.node[1].memdev);
	assert_string_equal(r->numa.node[2].memdev, "c");
	assert_true(r->numa.node[2].has_cpu && !r->numa.node[0].has_cpu);
	assert_false(r->numa.have_distance);
	done(r);
	/* without numbers: one after the other */
	r = good(TWO);
	assert_string_equal(r->numa.node[1].memdev, "b");
	done(r);
}

static void test_nodes_refused(void **state)
{
	bad("-numa node,nodeid=0,mem=1G", "mem=");
	bad("-numa node,nodeid=0", "no node has memory");
	bad("-numa node,memdev=a,nodeid=32", "nodeid=32");
	bad("-numa node,memdev=a,nodeid=x", "nodeid=x");
	bad("-numa node,memdev=a -numa node,nodeid=0", "nodeid=0 is given twice");
	bad("-numa node,memdev=a -numa node,nodeid=2", "nodeid=1 is missing");
	bad("-numa node,memdev=a -numa node,memdev=a", "memdev=a");
	bad("-numa node,memdev=a,socket=3", "socket");
	bad("-numa node,memdev=a,initiator=0", "hmat=on");
	bad("-numa memdev=a", "say node");
	bad("-numa nodes,memdev=a", "nodes");
	bad("-numa dist,src=0,dst=1,val=20", "no node");
}

static void test_cpus(void **state)
{
	cpus_are("-smp 4 " TWO, "0000");	       /* one socket */
	cpus_are("-smp 8,sockets=4 " TWO, "00110011"); /* round about */
	cpus_are("-smp 6 -numa node,memdev=a,cpus=1,cpus=3-4 -numa "
		 "node,memdev=b,cpus=0,cpus=2,cpus=5",
		 "101001");
	cpus_are("-smp 4 -numa node,memdev=a -numa node,memdev=b,cpus=1",
		 "0100"); /* and a warning */
	cpus_are("-smp 8,sockets=2,cores=2,threads=2 -numa cpu,node-id=1,socket-id=0 "
		 "-numa cpu,node-id=0,socket-id=1 " TWO,
		 "11110000");
	cpus_are("-smp 8,sockets=2,cores=2,threads=2 -numa cpu,node-id=1,core-id=1 "
		 "-numa cpu,node-id=0,core-id=0 " TWO,
		 "00110011");
	cpus_are("-smp 8,sockets=1,dies=2,cores=2,threads=2 -numa "
		 "cpu,node-id=1,die-id=1,thread-id=1 " TWO,
		 "00000101");
}

static void test_cpus_refused(void **state)
{
	bad("-smp 2 -numa node,memdev=a,cpus=2", "cpus=2");
	bad("-smp 2 -numa node,memdev=a,cpus=1-0", "cpus=1-0");
	bad("-smp 2 -numa node,memdev=a,cpus=0 -numa node,cpus=0-1", "CPU 0 is assigned");
	bad("-smp 2 -numa node,memdev=a,cpus=0 -numa node -numa cpu,node-id=1,core-id=0",
	    "CPU 0");
	bad(TWO "-numa cpu,socket-id=0", "node-id= is missing");
	bad(TWO "-numa cpu,node-id=2,socket-id=0", "node-id=2");
	bad(TWO "-numa cpu,node-id=0,socket-id=1", "socket-id=1");
	bad(TWO "-numa cpu,node-id=0,cluster-id=0", "cluster-id");
}

static void test_distances(void **state)
{
	static const uint8_t symmetric[] = {10, 21, 31, 21, 10, 41, 31, 41, 10};
	static const uint8_t both[] = {10, 15, 255, 10};
	struct resolved *r =
		good(TWO "-numa node -numa dist,src=0,dst=1,val=21 "
			 "-numa dist,src=2,dst=0,val=31 -numa dist,src=1,dst=2,val=41");

	assert_true(r->numa.have_distance);
	assert_memory_equal(r->numa.distance, symmetric, sizeof(symmetric));
	done(r);
	r = good(TWO "-numa dist,src=0,dst=1,val=15 -numa dist,src=1,dst=0,val=255 "
		     "-numa dist,src=0,dst=0,val=10");
	assert_memory_equal(r->numa.distance, both, sizeof(both));
	done(r);

	bad(TWO "-numa dist,src=0,dst=1,val=9", "val=9");
	bad(TWO "-numa dist,src=0,dst=1,val=256", "val=256");
	bad(TWO "-numa dist,src=0,dst=1", "val=");
	bad(TWO "-numa dist,src=1,dst=1,val=11", "to itself");
	bad(TWO "-numa dist,src=0,dst=2,val=20", "dst=2");
	bad(TWO "-numa node -numa dist,src=0,dst=1,val=20", "nodes 0 and 2");
	bad(TWO "-numa node -numa dist,src=0,dst=1,val=20 -numa dist,src=1,dst=0,val=21 "
		"-numa dist,src=0,dst=2,val=20 -numa dist,src=1,dst=2,val=20",
	    "src=2,dst=0 is missing");
}

#define LB "-numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type="

static void test_hmat(void **state)
{
	struct resolved *r = good(
		HMAT TWO "-numa node,initiator=0 " LB "access-latency,latency=5 " LB
			 "write-bandwidth,bandwidth=3G "
			 "-numa hmat-cache,node-id=2,size=2M,level=2,associativity=complex,"
			 "policy=write-through,line=128 "
			 "-numa hmat-cache,node-id=2,size=64K,level=1,associativity=none,"
			 "policy=none,line=8 -smp 2,sockets=2 -numa cpu,node-id=0,socket-id=0 "
			 "-numa cpu,node-id=1,socket-id=1");

	assert_int_equal(r->numa.node[0].initiator, 0);
	assert_int_equal(r->numa.node[1].initiator, 1);
	assert_int_equal(r->numa.node[2].initiator, 0);
	assert_int_equal(r->numa.nlb, 2);
	assert_int_equal(r->numa.lb[0].type, HMAT_ACCESS_LATENCY);
	assert_int_equal(r->numa.lb[0].value, 5000);
	assert_int_equal(r->numa.lb[1].type, HMAT_WRITE_BANDWIDTH);
	assert_int_equal(r->numa.lb[1].value, 3072);
	assert_int_equal(r->numa.ncache, 2);
	assert_int_equal(r->numa.cache[0].size, 2 * MiB);
	assert_int_equal(r->numa.cache[0].associativity, 2);
	assert_int_equal(r->numa.cache[0].policy, 2);
	assert_int_equal(r->numa.cache[0].line, 128);
	done(r);
}

#define CACHE "-numa hmat-cache,node-id=1,policy=none,associativity=none,line=64,"
#define CPUS  "-smp 2,sockets=2 "

static void test_hmat_refused(void **state)
{
	bad(TWO LB "access-latency,latency=5", "hmat=on");
	bad(TWO CACHE "size=1M,level=1", "hmat=on");
	bad(HMAT TWO, "nodeid=1 has no CPUs");
	bad(HMAT TWO "-numa node,initiator=1", "nodeid=1 has no CPUs");
	bad(HMAT "-numa node,memdev=a -numa node,initiator=1",
	    "initiator=1 is not a node with CPUs");
	bad(HMAT "-numa node,memdev=a -numa node,initiator=5", "initiator=5");
	bad(HMAT CPUS "-numa node,memdev=a,initiator=1 -numa node", "its own initiator");
	bad(HMAT CPUS TWO LB "access-latency,bandwidth=1G", "latency=");
	bad(HMAT CPUS TWO LB "access-latency,latency=5,bandwidth=1G", "bandwidth=");
	bad(HMAT CPUS TWO LB "access-latency,latency=0", "latency=0");
	bad(HMAT CPUS TWO LB "access-latency,latency=5ns", "latency=5ns");
	bad(HMAT CPUS TWO LB "read-bandwidth,bandwidth=1500K", "bandwidth=1500K");
	bad(HMAT CPUS TWO LB "speed,latency=5", "data-type=speed");
	bad(HMAT CPUS TWO LB "read-latency,latency=5 " LB "read-latency,latency=6", "twice");
	bad(HMAT CPUS TWO
	    "-numa hmat-lb,initiator=0,target=1,hierarchy=l1,data-type=read-latency,latency=1",
	    "hierarchy=l1");
	bad(HMAT CPUS TWO
	    "-numa hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=read-latency,"
	    "latency=1",
	    "target=2");
	bad(HMAT
	    "-numa node,memdev=a -numa node,initiator=0 -numa hmat-lb,initiator=1,target=1,"
	    "hierarchy=memory,data-type=read-latency,latency=1",
	    "initiator=1 is a node without CPUs");
	/* 1 ns and 65535 ns have no common unit of 16 bits */
	bad(HMAT CPUS TWO LB "read-latency,latency=65535 -numa hmat-lb,initiator=0,target=0,"
			     "hierarchy=memory,data-type=read-latency,latency=1",
	    "too far apart");
	bad(HMAT CPUS TWO CACHE "size=1M,level=0", "level=0");
	bad(HMAT CPUS TWO CACHE "size=1M,level=4", "level=4");
	bad(HMAT CPUS TWO CACHE "size=0,level=1", "size=0");
	bad(HMAT CPUS TWO CACHE "size=1M,level=2", "level 1 has to");
	bad(HMAT CPUS TWO CACHE "size=1M,level=2 " CACHE "size=1M,level=1", "smaller");
	bad(HMAT CPUS TWO CACHE "size=1M,level=1 " CACHE "size=2M,level=1", "twice");
	bad(HMAT CPUS TWO
	    "-numa hmat-cache,node-id=1,size=1M,level=1,policy=lru,associativity=none,line=64",
	    "policy=lru");
	bad(HMAT CPUS TWO
	    "-numa hmat-cache,node-id=1,size=1M,level=1,policy=none,associativity=none,"
	    "line=65536",
	    "line=65536");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),	      cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_nodes_refused), cmocka_unit_test(test_cpus),
		cmocka_unit_test(test_cpus_refused),  cmocka_unit_test(test_distances),
		cmocka_unit_test(test_hmat),	      cmocka_unit_test(test_hmat_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
