// One line for each check, and their number.

export class Checks {
  passed = 0;
  failed = 0;

  // `wrong` is what was found; nothing is good.
  add(name: string, wrong: string[]): void {
    console.log(`  ${wrong.length === 0 ? 'ok    ' : 'FAILED'}  ${name}`);
    for (const one of wrong) {
      console.log(`          ${one}`);
    }
    if (wrong.length === 0) {
      this.passed += 1;
    } else {
      this.failed += 1;
    }
  }

  // What may be as it is, yet should be known.
  note(notes: string[]): void {
    for (const one of notes) {
      console.log(`          note: ${one}`);
    }
  }
}
