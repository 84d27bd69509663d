/**
 * Loaded before a test file. Flows in: SIGUSR2 from the runner, sent to a process that should have
 * ended. Flows out: one line that names what keeps it alive. It promises to hold nothing open
 * itself: a signal handler does not keep a process running.
 */
process.on('SIGUSR2', () => {
  const resources = process.getActiveResourcesInfo();
  process.stderr.write(
    `\nstill open: ${resources.length > 0 ? resources.join(', ') : 'nothing'}\n`,
  );
});
