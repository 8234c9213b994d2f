/* main: parse, build, isolate, run. */
int main(void)
{
	return 0;
}
